/** @import { Counts, Model } from './model.d.ts' */
import uPlot from '/uplot/uPlot.esm.js'
import { byId, element, empty, replace } from './document.js'
import { number, time } from './text.js'

/** From the bottom of a bar to its top; each begins where the last one ends. */
const kinds = /** @type {readonly (readonly [keyof Counts, string])[]} */ ([
  ['x509', 'X.509-SVIDs'],
  ['jwt', 'JWT-SVIDs'],
  ['agent', 'agents’ own'],
])

const style = (/** @type {string} */ name) =>
  getComputedStyle(document.documentElement).getPropertyValue(name).trim()

/** @typedef {Counts & { at: number }} Bar */

/** A chart of bars, of which each has a part for each kind of SVID. */
class Bars {
  #host
  #chart
  #table
  #title
  #step
  /** @type {readonly Bar[]} */
  #bars = []
  #drawn = ''

  /**
   * @param {string} id of the element it is in
   * @param {{ title: string, step: number }} options seconds of a bar, and what the chart is of
   */
  constructor(id, { title, step }) {
    this.#host = byId(id)
    this.#title = title
    this.#step = step
    this.#table = element(
      'details',
      { class: 'as-table' },
      element('summary', {}, 'As a table'),
      element('div'),
    )
    const figure = element('div', { class: 'chart', role: 'img' })
    this.#host.append(figure, this.#table)
    this.#chart = new uPlot(this.#options(figure), [[], [], [], []], figure)
    new ResizeObserver(() => this.#fit(figure)).observe(figure)
    this.#table.addEventListener('toggle', () => this.#fillTable())
  }

  /** @param {readonly Bar[]} bars @param {{ from: number, until: number }} span */
  show(bars, { from, until }) {
    const text = JSON.stringify([bars, from, until])
    if (text === this.#drawn) return
    this.#drawn = text
    this.#bars = bars
    // What is drawn first is covered by what comes after: the whole bar, then all but its top, and so on.
    const stacked = kinds.map((_, index) =>
      bars.map((bar) =>
        kinds.slice(0, kinds.length - index).reduce((sum, [kind]) => sum + bar[kind], 0),
      ),
    )
    this.#chart.setData([bars.map(({ at }) => at + this.#step / 2), ...stacked], false)
    this.#chart.setScale('x', { min: from, max: until })
    const highest = Math.max(0, ...(stacked[0] ?? []))
    this.#chart.setScale('y', { min: 0, max: Math.max(4, highest * 1.1) })
    const totals = kinds.map(
      ([kind, label]) => `${number(bars.reduce((sum, bar) => sum + bar[kind], 0))} ${label}`,
    )
    const figure = this.#host.querySelector('.chart')
    figure?.setAttribute('aria-label', `${this.#title}: ${totals.join(', ')}`)
    this.#fillTable()
  }

  /** Draws it in the colours of now. */
  redraw() {
    this.#chart.redraw(false, true)
  }

  #fillTable() {
    const host = this.#table.querySelector('div')
    if (host === null || !this.#table.open) return
    const filled = this.#bars.filter((bar) => kinds.some(([kind]) => bar[kind] > 0))
    if (filled.length === 0) return host.replaceChildren(empty('Nothing.'))
    host.replaceChildren(
      element(
        'table',
        {},
        element(
          'thead',
          {},
          element(
            'tr',
            {},
            ...['From', ...kinds.map(([, label]) => label)].map((text) =>
              element('th', { scope: 'col' }, text),
            ),
          ),
        ),
        element(
          'tbody',
          {},
          ...filled.map((bar) =>
            element(
              'tr',
              {},
              element('th', { scope: 'row' }, time(bar.at)),
              ...kinds.map(([kind]) => element('td', { class: 'right' }, number(bar[kind]))),
            ),
          ),
        ),
      ),
    )
  }

  /** @param {HTMLElement} figure */
  #fit(figure) {
    const width = figure.clientWidth
    if (width > 0 && width !== this.#chart.width) this.#chart.setSize({ width, height: 170 })
  }

  /** @param {HTMLElement} figure */
  #options(figure) {
    const axis = {
      stroke: () => style('--muted'),
      grid: { stroke: () => style('--line'), width: 1 },
      ticks: { show: false },
      font: '12px system-ui, sans-serif',
    }
    const bars = uPlot.paths.bars?.({ size: [0.8, 24], align: 0 })
    return {
      width: figure.clientWidth || 300,
      height: 170,
      legend: { show: false },
      cursor: { show: false },
      tzDate: (/** @type {number} */ at) => uPlot.tzDate(new Date(at * 1000), 'Etc/UTC'),
      scales: { x: { time: true, auto: false }, y: { auto: false } },
      axes: [
        {
          ...axis,
          space: 70,
          size: 26,
          values: (/** @type {unknown} */ _, /** @type {number[]} */ at) =>
            at.map((one) => time(one).slice(11, 16)),
        },
        {
          ...axis,
          size: 44,
          values: (/** @type {unknown} */ _, /** @type {number[]} */ of) =>
            of.map((one) => (Number.isInteger(one) ? number(one) : '')),
        },
      ],
      series: [
        {},
        ...kinds.toReversed().map(([kind, label]) => ({
          label,
          fill: () => style(`--series-${kind}`),
          width: 0,
          points: { show: false },
          ...(bars && { paths: bars }),
        })),
      ],
    }
  }
}

/** SVIDs by when they were signed and by when they expire. */
export class Charts {
  #issued = new Bars('issued', { title: 'SVIDs issued in the last hour, by minute', step: 60 })
  #expiring = new Bars('expiring', { title: 'SVIDs by when they expire', step: 300 })

  /** @param {Model} model */
  render({ summary }) {
    if (summary.data === undefined) return
    const { issued, expiring, expiringLater, startedAt, nowMs } = summary.data
    const now = Math.floor(nowMs / 60_000) * 60
    this.#issued.show(issued, { from: now - 59 * 60, until: now + 60 })
    const last = expiring.at(-1)?.until ?? 0
    const hours = [1, 2, 6, 12, 24].find((one) => last <= now + one * 3600) ?? 24
    this.#expiring.show(
      expiring.map(({ from, ...counts }) => ({ at: from, ...counts })),
      { from: now - 300, until: now + hours * 3600 },
    )
    const later = kinds
      .filter(([kind]) => expiringLater[kind] > 0)
      .map(([kind, label]) => `${number(expiringLater[kind])} ${label}`)
    replace(
      byId('expiring-note'),
      [
        `Signed since the server started, ${time(startedAt)}; those that were replaced since are among them.`,
        ...(later.length > 0 ? [` Later than 24 h: ${later.join(', ')}.`] : []),
      ].map((text) => document.createTextNode(text)),
    )
  }

  redraw() {
    this.#issued.redraw()
    this.#expiring.redraw()
  }
}
