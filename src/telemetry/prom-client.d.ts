// biome-ignore-all lint/style/noDefaultExport: a CommonJS module is its default export
// The parts of prom-client that are used. Its index also loads metrics of its own, and with them OpenTelemetry's
// API: 9 MB of an idle process.

declare module 'prom-client/lib/counter.js' {
  export { Counter as default } from 'prom-client'
}
declare module 'prom-client/lib/gauge.js' {
  export { Gauge as default } from 'prom-client'
}
declare module 'prom-client/lib/histogram.js' {
  export { Histogram as default } from 'prom-client'
}
declare module 'prom-client/lib/registry.js' {
  export { Registry as default } from 'prom-client'
}
