/** @import { Key, Keys, Model, Rotation } from './model.d.ts' */
import { byId, element, empty, replace } from './document.js'
import { count, distance, duration, number, short, time } from './text.js'

const kinds = /** @type {Record<string, string>} */ ({
  'x509-ca': 'X.509 authority',
  jwt: 'JWT authority',
})
const order = ['x509-ca', 'jwt']
const stages = ['prepared', 'active', 'old']

/**
 * Who would miss an authority, as `assay hsm status` says it.
 *
 * @param {Key} key
 * @param {number} now
 */
function dependents(key, now) {
  if (key.signedUntil <= now) return 'nobody depends on it'
  const until = `for ${duration(key.signedUntil - now)}`
  if (key.purpose === 'jwt') return `tokens depend on it ${until}`
  if (key.nodes === 0) return 'no node depends on it'
  const nodes = count(key.nodes, 'node')
  return key.svids === 0
    ? `perhaps ${nodes} ${until}`
    : `${count(key.svids, 'SVID')} on ${nodes} ${until}`
}

/**
 * Steps of a scale that a person finds round, in seconds.
 */
const steps = [
  60,
  300,
  900,
  3600,
  3 * 3600,
  6 * 3600,
  12 * 3600,
  86_400,
  2 * 86_400,
  7 * 86_400,
  14 * 86_400,
  30 * 86_400,
  91 * 86_400,
  365 * 86_400,
]

/**
 * @param {number} from Unix time
 * @param {number} until Unix time
 */
function ticks(from, until) {
  const step = steps.find((one) => (until - from) / one <= 7) ?? 5 * 365 * 86_400
  const found = []
  for (let at = Math.ceil(from / step) * step; at < until; at += step) found.push(at)
  return {
    found,
    label: (/** @type {number} */ at) =>
      step < 86_400
        ? time(at).slice(11, 16) + (at % 86_400 === 0 ? ` ${time(at).slice(5, 10)}` : '')
        : time(at).slice(step >= 30 * 86_400 ? 0 : 5, 10),
  }
}

/** @param {Key} key */
const stateWords = (key) =>
  [key.state, key.tainted ? 'tainted' : '', key.isPresent ? '' : 'key destroyed']
    .filter((word) => word !== '')
    .join(', ')

/**
 * @param {Key} key
 * @param {{ from: number, until: number, now: number }} span
 */
function row(key, { from, until, now }) {
  const at = (/** @type {number} */ when) =>
    `${Math.min(100, Math.max(0, ((when - from) / (until - from)) * 100))}%`
  const bar = element('div', { class: `bar ${key.state}${key.tainted ? ' tainted' : ''}` })
  bar.style.insetInlineStart = at(key.createdAt)
  bar.style.insetInlineEnd = `calc(100% - ${at(key.expiresAt)})`
  const track = element('div', { class: 'track', 'aria-hidden': 'true' }, bar)
  const mark = (
    /** @type {number} */ when,
    /** @type {string} */ kind,
    /** @type {string} */ title,
  ) => {
    if (when <= from || when > until) return
    const made = element('span', { class: `mark-${kind}`, title })
    made.style.insetInlineStart = at(when)
    track.append(made)
  }
  if (key.signedUntil > now)
    mark(key.signedUntil, 'signed', `the last of what it signed expires ${time(key.signedUntil)}`)
  if (key.nextEvent !== '')
    mark(key.nextEventAt, 'next', `${key.nextEvent} ${time(key.nextEventAt)}`)
  const next = key.nextEvent === '' ? '' : `${key.nextEvent} ${distance(key.nextEventAt, now)}`
  const type = key.pqParameterSet === '' ? key.type : `${key.type} + ${key.pqParameterSet}`
  return element(
    'li',
    { class: 'authority' },
    element(
      'div',
      { class: 'who' },
      element(
        'span',
        { class: `badge ${key.state}${key.tainted ? ' tainted' : ''}` },
        stateWords(key),
      ),
      element('span', {}, kinds[key.purpose] ?? key.purpose),
      element(
        'span',
        { class: 'faint' },
        `${type} `,
        element('code', { title: key.authorityId }, short(key.authorityId)),
      ),
    ),
    track,
    element(
      'div',
      { class: 'what' },
      element('span', {}, next === '' ? 'nothing is to happen to it' : next),
      element(
        'span',
        { class: 'faint' },
        `${dependents(key, now)}; ends `,
        element(
          'time',
          { datetime: time(key.expiresAt), title: time(key.expiresAt) },
          distance(key.expiresAt, now),
        ),
      ),
    ),
  )
}

/**
 * How far a rotation has come, told from what the server says of keys and nodes.
 *
 * @param {Rotation} rotation
 * @param {Keys} keys
 * @param {number} now
 */
function rotationRow(rotation, keys, now) {
  const purpose = rotation.kind === 'x509' ? 'x509-ca' : rotation.kind
  const old = keys.keys.find(({ authorityId }) => authorityId === rotation.predecessorId)
  const successor = keys.keys.find(
    ({ purpose: of, state }) => of === purpose && state === 'prepared',
  )
  const { live, acknowledged } = keys.propagation
  let step = 'the successor is being made'
  let done = 0
  let of = 0
  if (successor !== undefined) {
    step = `the successor is in the bundle, which ${number(acknowledged)} of ${count(live, 'live node')} have`
    done = acknowledged
    of = live
  } else if (old !== undefined && old.state === 'old') {
    step =
      old.svids > 0 || old.nodes > 0
        ? `the successor signs; ${count(old.svids, 'SVID')} on ${count(old.nodes, 'node')} are to be replaced`
        : 'the successor signs; nothing depends on the old one any more'
    of = live
    done = Math.max(0, live - old.nodes)
  }
  const command = `assay hsm rotate ${rotation.kind}${rotation.retire ? ' --retire' : ''}`
  return element(
    'div',
    { class: 'rotation', role: 'status' },
    element('strong', {}, `${kinds[purpose] ?? rotation.kind} is being rotated`),
    element('span', {}, `${step}; begun ${distance(rotation.startedAt, now)}`),
    of > 0
      ? element('progress', { max: of, value: done, 'aria-label': 'nodes that are done' })
      : undefined,
    element(
      'span',
      { class: 'faint' },
      'its steps are taken while ',
      element('code', {}, command),
      ' runs, which can be called again',
    ),
  )
}

/**
 * The authorities on a time line, each from its beginning to its end.
 *
 * @param {Model} model
 */
export function renderKeys({ keys, now }) {
  const panel = byId('timeline')
  if (keys.data === undefined) {
    if (keys.problem !== undefined) replace(panel, [empty(keys.problem.message)])
    return
  }
  const { data } = keys
  const authorities = data.keys
    .filter(({ purpose, createdAt }) => purpose !== '' && createdAt > 0)
    .sort(
      (a, b) =>
        order.indexOf(a.purpose) - order.indexOf(b.purpose) ||
        stages.indexOf(b.state) - stages.indexOf(a.state),
    )
  replace(
    byId('rotations'),
    data.rotations.map((rotation) => rotationRow(rotation, data, now)),
  )
  if (authorities.length === 0) {
    replace(panel, [empty('There is no authority yet. `assay hsm status` says why.')])
    return
  }
  const from = Math.min(now, ...authorities.map(({ createdAt }) => createdAt))
  const until = Math.max(now + 60, ...authorities.map(({ expiresAt }) => expiresAt))
  const scale = element('div', { class: 'scale', 'aria-hidden': 'true' })
  const { found, label } = ticks(from, until)
  for (const at of found) {
    // The mark of now has more to say.
    if (Math.abs(at - now) < (until - from) * 0.08) continue
    const share = (at - from) / (until - from)
    // At the end there is no room behind the mark.
    const tick = element('span', { class: share > 0.85 ? 'tick late' : 'tick' }, label(at))
    tick.style.insetInlineStart = `${share * 100}%`
    scale.append(tick)
  }
  const present = element('span', { class: 'now' }, 'now')
  present.style.insetInlineStart = `${((now - from) / (until - from)) * 100}%`
  scale.append(present)
  const list = element(
    'ul',
    { class: 'authorities' },
    ...authorities.map((key) => row(key, { from, until, now })),
  )
  list.style.setProperty('--now', String((now - from) / (until - from)))
  const orphans = data.keys.filter(({ purpose }) => purpose === '').length
  replace(panel, [
    element('div', { class: 'scale-row' }, scale),
    list,
    ...(orphans > 0
      ? [empty(`${count(orphans, 'key')} of no authority of this server: \`assay hsm keys\``)]
      : []),
  ])
}
