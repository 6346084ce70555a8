"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  const settings = { responsive: true, displayModeBar: false, scrollZoom: false };

  // Colours come from the style sheet, so that pictures follow the page into the dark and onto paper.
  function themed(layout) {
    const style = getComputedStyle(document.documentElement);
    const [ink, line, panel] = ["--ink", "--line", "--panel"].map((name) => style.getPropertyValue(name).trim());
    const family = getComputedStyle(document.body).fontFamily;
    const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, tickcolor: line };
    return {
      ...layout, dragmode: false, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: ink, family, size: 13 },
      hoverlabel: { bgcolor: panel, bordercolor: line, font: { color: ink, family, size: 13 }, align: "left" },
      xaxis: { ...axis, ...layout.xaxis }, yaxis: { ...axis, ...layout.yaxis },
    };
  }

  // A figure {data, layout}, or the sentence that stands in its place.
  function show(id, figure) {
    const told = typeof figure === "string";
    at(id).hidden = told;
    at(id + "-empty").hidden = !told;
    if (told) {
      at(id + "-empty").textContent = figure;
      Plotly.purge(at(id));
    } else {
      Plotly.react(at(id), structuredClone(figure.data), themed(structuredClone(figure.layout)), settings);
    }
  }

  const point = () => Number(at("point").value);

  function drawFront() {
    show("front", data.front[at("x").value + "|" + at("y").value] || "Nothing was measured on these axes.");
  }

  function drawHeat() {
    show("heat", data.heat[point()][at("measure").value]);
  }

  function drawSpectra() {
    const found = data.spectra[point()];
    at("item").disabled = typeof found === "string";
    if (typeof found === "string") return show("spectra", found);
    const [kind, number] = at("item").value.split(":");
    const names = kind === "group" ? found.groups[number][1] : [Object.keys(found.items)[number]];
    show("spectra", { data: names.flatMap((name) => found.items[name]), layout: { ...found.layout, showlegend: true } });
  }

  function option(value, name) {
    const made = document.createElement("option");
    made.value = value;
    made.textContent = name;
    return made;
  }

  // The menu of layers and items of the result that is shown; the choice stays where the new one has it too.
  function listItems() {
    const found = data.spectra[point()], menu = at("item"), before = menu.value;
    menu.replaceChildren();
    if (typeof found === "string") return;
    const layers = document.createElement("optgroup"), items = document.createElement("optgroup");
    layers.label = "Layers";
    items.label = "Items";
    found.groups.forEach(([name], i) => layers.append(option("group:" + i, name)));
    Object.keys(found.items).forEach((name, i) => items.append(option("item:" + i, name)));
    menu.append(layers, items);
    if ([...menu.options].some((o) => o.value === before)) menu.value = before;
  }

  function drawPoint() {
    document.querySelectorAll("[data-point]").forEach((part) => {
      part.hidden = Number(part.dataset.point) !== point();
    });
    listItems();
    drawHeat();
    drawSpectra();
  }

  function drawAll() {
    if (at("x")) drawFront();
    if (data.curves) show("curves", data.curves);
    for (const [id, figure] of Object.entries(data.figures || {})) show(id, figure);
    if (at("point")) {
      drawHeat();
      drawSpectra();
    }
  }

  async function copy() {
    const text = at("command").textContent;
    let done = true;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Files opened from a disk may be refused the clipboard: select the text, and try the older way.
      getSelection().selectAllChildren(at("command"));
      done = document.execCommand("copy");
    }
    at("copied").textContent = done ? "Copied." : "The command is selected; copy it with your keyboard.";
  }

  at("copy").addEventListener("click", copy);
  for (const id of ["x", "y"]) at(id)?.addEventListener("change", drawFront);
  at("point")?.addEventListener("change", drawPoint);
  at("measure")?.addEventListener("change", drawHeat);
  at("item")?.addEventListener("change", drawSpectra);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  addEventListener("beforeprint", () => { document.documentElement.dataset.print = ""; drawAll(); });
  addEventListener("afterprint", () => { delete document.documentElement.dataset.print; drawAll(); });
  if (at("point")) drawPoint();
  drawAll();
  document.documentElement.dataset.drawn = "yes";
})();
