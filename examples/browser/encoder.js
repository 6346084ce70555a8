"use strict";
// A sentence encoder of the BERT family in the browser: the tokens of a text, and the mean of their last hidden states.

const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);

async function fetchJson(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path} is not there; see README.md`);
  return response.json();
}

/** Words and signs of a text, as BERT parts them, in lower case and without accents where its vocabulary is so. */
function words(text, lower) {
  let clean = text.normalize("NFC").replace(/[\u0000-\u0008\u000e-\u001f\ufffd]/g, "");
  if (lower) clean = clean.toLowerCase().normalize("NFD").replace(/\p{Mn}/gu, "");
  const sign = /[\p{P}\u0021-\u002f\u003a-\u0040\u005b-\u0060\u007b-\u007e]|[\u4e00-\u9fff]/gu;
  return clean.replace(sign, " $& ").split(/\s+/u).filter((word) => word);
}

/** The tokens of a word: from its start, always the longest piece that the vocabulary has. */
function pieces(word, vocabulary, unknown) {
  const found = [];
  for (let start = 0; start < word.length;) {
    let end = word.length;
    let id;
    for (; end > start; end--) {
      id = vocabulary[(start ? "##" : "") + word.slice(start, end)];
      if (id !== undefined) break;
    }
    if (id === undefined) return [unknown];
    found.push(id);
    start = end;
  }
  return found;
}

/** Reads a folder that polyad wrote: its tokenizer, and its graph with the numbers beside it where there are such. */
async function loadEncoder(folder) {
  ort.env.wasm.numThreads = 1; // more need headers that a plain server does not send
  const tokenizer = await fetchJson(`${folder}/tokenizer.json`);
  const vocabulary = tokenizer.model.vocab;
  const lower = tokenizer.normalizer ? tokenizer.normalizer.lowercase !== false : false;
  const beside = await fetch(`${folder}/model.onnx_data`);
  const options = { executionProviders: ["wasm"] };
  if (beside.ok) {
    options.externalData = [{ path: "model.onnx_data", data: new Uint8Array(await beside.arrayBuffer()) }];
  }
  const session = await ort.InferenceSession.create(`${folder}/model.onnx`, options);

  function tokens(text) {
    const unknown = vocabulary[tokenizer.model.unk_token];
    const inner = words(text, lower).flatMap((word) => pieces(word, vocabulary, unknown));
    return [vocabulary["[CLS]"], ...inner.slice(0, 254), vocabulary["[SEP]"]];
  }

  async function embed(text) {
    const ids = tokens(text);
    const row = (values) => new ort.Tensor("int64", BigInt64Array.from(values, BigInt), [1, ids.length]);
    const feeds = { input_ids: row(ids), attention_mask: row(ids.map(() => 1)), token_type_ids: row(ids.map(() => 0)) };
    const known = Object.fromEntries(session.inputNames.map((name) => [name, feeds[name]]));
    const { last_hidden_state: hidden } = await session.run(known);
    const width = hidden.dims[2];
    const mean = new Array(width).fill(0);
    hidden.data.forEach((value, i) => { mean[i % width] += value / ids.length; });
    const length = Math.sqrt(dot(mean, mean));
    return mean.map((value) => value / length);
  }
  return { tokens, embed };
}
