// Search on pages opened from a disk: browsers start no worker from a file, so a hidden frame does its work.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      this.ready = new Promise((resolve) => {
        const start = () => {
          document.body.append(frame)
          const inside = frame.contentWindow
          const load = (source) =>
            new Promise((loaded, failed) => {
              const script = inside.document.createElement("script")
              script.src = source
              script.onload = loaded
              script.onerror = failed
              inside.document.body.append(script)
            })
          inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }))
          inside.importScripts = (...sources) => sources.reduce((before, one) => before.then(() => load(one)), Promise.resolve())
          load(url).then(() => resolve(inside))
        }
        if (document.body) start()
        else addEventListener("DOMContentLoaded", start)
      })
    }
    postMessage(data) {
      this.ready.then((inside) => inside.dispatchEvent(new MessageEvent("message", { data })))
    }
    terminate() {}
  }
}
