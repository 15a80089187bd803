/** @import { Model, NodesUpdate } from './model.d.ts' */
import { Charts } from './charts.js'
import { byId, element, prose, replace } from './document.js'
import { follow } from './events.js'
import { renderHealth } from './health.js'
import { renderKeys } from './keys.js'
import { NodesPanel } from './nodes.js'
import { renderNumbers } from './numbers.js'
import { renderRefusals } from './refusals.js'
import { paint } from './states.js'
import { duration, time } from './text.js'

/** @type {Model} */
const model = {
  server: undefined,
  summary: {},
  keys: {},
  refusals: {},
  missing: {},
  nodes: new Map(),
  nodesKnown: false,
  now: 0,
}

const nodes = new NodesPanel()
const charts = new Charts()
/** How far this page's clock is from the server's: times are the server's, or the browser's until it tells. */
let offsetMs = performance.timeOrigin
/** @type {'connecting' | 'open' | 'lost' | 'refused'} */
let line = 'connecting'
/** Since when the server, or the console, is away. Of this page's monotonic clock, in milliseconds. */
let awaySinceMs = 0

const due = new Set()

/** Draws what has changed, once a frame at most. @param {string} part */
function draw(part) {
  if (due.size === 0) {
    // A page in the background has no frames.
    if (document.hidden) setTimeout(drawDue, 200)
    else requestAnimationFrame(drawDue)
  }
  due.add(part)
}

function drawDue() {
  const parts = new Set(due)
  due.clear()
  model.now = Math.floor((performance.now() + offsetMs) / 1000)
  if (parts.has('nodes') || parts.has('missing')) nodes.render(model)
  if (parts.has('summary')) charts.render(model)
  if (parts.has('summary') || parts.has('keys') || parts.has('nodes')) renderHealth(model)
  renderRefusals(model)
  renderKeys(model)
  renderNumbers(model)
  renderServer()
}

function renderServer() {
  const { server, summary, now } = model
  const state = byId('connection')
  const banner = byId('banner')
  const isLost = line === 'lost' || line === 'refused'
  const isAway = server?.connected === false
  const name = isLost || isAway ? 'away' : server?.connected === true ? 'connected' : 'connecting'
  document.documentElement.dataset['server'] = name
  const words = { away: 'not connected', connected: 'connected', connecting: 'connecting' }
  if (state.textContent !== words[name]) state.textContent = words[name]
  const { data } = summary
  byId('trust-domain').textContent = data?.trustDomain ?? ''
  document.title = data === undefined ? 'Assay' : `${data.trustDomain} – Assay`
  byId('about').textContent =
    data === undefined ? '' : `server ${data.version}, up ${duration(now - data.startedAt)}`
  const clock = /** @type {HTMLTimeElement} */ (byId('clock'))
  clock.textContent =
    data === undefined || isLost || isAway ? '' : `${time(now).slice(0, 10)} ${time(now).slice(11)}`
  banner.hidden = !(isLost || isAway)
  if (banner.hidden) return
  const since = duration((performance.now() - awaySinceMs) / 1000)
  const [what, next] =
    line === 'refused'
      ? [
          'This tab may not look.',
          'Open the link that `assay console` printed last: each works once.',
        ]
      : line === 'lost'
        ? [
            `The console has ended or is out of reach, for ${since}. What is shown is old.`,
            'Start `assay console` again and open its link. If it comes back by itself, so does this page.',
          ]
        : [
            `The server is not connected, for ${since}. What is shown is old.`,
            'It comes back by itself. Is `assay-server` running? `journalctl -u assay-server` says why not.',
          ]
  const why = line === 'open' && server?.why !== undefined ? server.why : ''
  const text = `${what}${next}${why}`
  if (banner.dataset['text'] === text) return
  banner.dataset['text'] = text
  replace(banner, [
    element('strong', {}, what),
    element('span', {}, ...prose(next)),
    ...(why === '' ? [] : [element('code', {}, why)]),
  ])
}

/** @param {NodesUpdate} update */
function applyNodes({ complete, nodes: changed, removed }) {
  if (complete) model.nodes.clear()
  for (const node of changed) model.nodes.set(node.id, node)
  for (const id of removed) model.nodes.delete(id)
  model.nodesKnown = true
}

/** @param {string} topic @param {unknown} data */
function onEvent(topic, data) {
  if (topic === 'nodes') applyNodes(/** @type {NodesUpdate} */ (data))
  else if (topic === 'server') {
    const server = /** @type {import('./model.d.ts').ServerState} */ (data)
    if (!server.connected && model.server?.connected !== false) awaySinceMs = performance.now()
    model.server = server
  } else if (['summary', 'keys', 'refusals', 'missing'].includes(topic)) {
    Object.assign(model, { [topic]: data })
    if (topic === 'summary' && model.summary.data !== undefined) {
      offsetMs = model.summary.data.nowMs - performance.now()
    }
  }
  draw(topic)
}

/** @param {'open' | 'lost' | 'refused'} state */
function onState(state) {
  if (state === 'lost' && line !== 'lost') awaySinceMs = performance.now()
  line = state
  draw('server')
}

matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
  for (const canvas of document.querySelectorAll('canvas.symbol')) {
    paint(/** @type {HTMLCanvasElement} */ (canvas))
  }
  nodes.redraw()
  charts.redraw()
})

setInterval(() => draw('clock'), 1000)
void follow({ onEvent, onState })
