import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'

/** A file that a browser may have without showing who it is: it holds nothing but the program. */
export interface Asset {
  readonly contentType: string
  readonly body: Uint8Array<ArrayBuffer>
}

const text = 'text/javascript; charset=utf-8'

/** Files of `ui/`, in the order in which the page asks for them. */
const own: Readonly<Record<string, string>> = {
  'index.html': 'text/html; charset=utf-8',
  'console.css': 'text/css; charset=utf-8',
  'icon.svg': 'image/svg+xml',
  'main.js': text,
  'charts.js': text,
  'document.js': text,
  'events.js': text,
  'health.js': text,
  'keys.js': text,
  'map.js': text,
  'nodes.js': text,
  'numbers.js': text,
  'refusals.js': text,
  'states.js': text,
  'text.js': text,
}

/** Files of the chart library, as they are in its package. */
const library: Readonly<Record<string, string>> = {
  'uPlot.esm.js': text,
  'uPlot.min.css': 'text/css; charset=utf-8',
}

/** Every file by its path. They are read once: what is served is what was there when it began. */
export function loadAssets(): ReadonlyMap<string, Asset> {
  const resolve = createRequire(import.meta.url).resolve
  const read = (path: string, contentType: string): Asset => ({
    contentType,
    body: new Uint8Array(readFileSync(path)),
  })
  const assets = new Map<string, Asset>()
  for (const [name, type] of Object.entries(own)) {
    const path = fileURLToPath(new URL(`./ui/${name}`, import.meta.url))
    assets.set(name === 'index.html' ? '/' : `/${name}`, read(path, type))
  }
  for (const [name, type] of Object.entries(library)) {
    assets.set(`/uplot/${name}`, read(resolve(`uplot/dist/${name}`), type))
  }
  return assets
}
