/** @import { Key, Model } from './model.d.ts' */
import { byId, element, replace } from './document.js'
import { distance, duration, number } from './text.js'

const kinds = /** @type {Record<string, string>} */ ({
  'x509-ca': 'X.509 authority',
  jwt: 'JWT authority',
})

/**
 * What happens next to a key of the server, if anything is to.
 *
 * @param {readonly Key[]} keys
 */
const nextEvent = (keys) =>
  keys
    .filter((key) => key.nextEvent !== '' && key.nextEventAt > 0)
    .sort((a, b) => a.nextEventAt - b.nextEventAt)[0]

/**
 * The figures that are read from across the room.
 *
 * @param {Model} model
 */
export function renderNumbers({ summary, keys, refusals, missing, nodes, nodesKnown, now }) {
  const in_ = (/** @type {string} */ state) => {
    let found = 0
    for (const node of nodes.values()) if (node.state === state) found++
    return found
  }
  const live = in_('live')
  const lacking = in_('lacking')
  const away = in_('away')
  const pending = in_('pending')
  const attested = live + lacking + away + in_('expired')
  /** @type {HTMLElement[]} */
  const tiles = []
  const add = (
    /** @type {string} */ label,
    /** @type {string} */ value,
    /** @type {string} */ note,
    level = '',
  ) =>
    tiles.push(
      element(
        'div',
        { class: `tile ${level}` },
        element('dt', {}, label),
        element(
          'dd',
          {},
          element('span', { class: value.length > 7 ? 'figure long' : 'figure' }, value),
          element('span', { class: 'note' }, note),
        ),
      ),
    )
  const node = (/** @type {number} */ value) => (nodesKnown ? number(value) : '–')
  add('Live nodes', node(live + lacking), nodesKnown ? `of ${number(attested)} attested` : '')
  add(
    'Lacking the bundle',
    node(lacking),
    keys.data === undefined ? '' : `bundle number ${keys.data.propagation.sequenceNumber}`,
    lacking > 0 ? 'warn' : '',
  )
  add('Away', node(away), 'with a valid SVID', away > 0 ? 'warn' : '')
  add(
    'Pending approval',
    missing.inventory === undefined ? node(pending) : '–',
    missing.inventory !== undefined
      ? 'not shown'
      : pending > 0
        ? 'TPMs wait for a decision'
        : 'no TPM waits',
    pending > 0 ? 'info' : '',
  )
  if (summary.data !== undefined) {
    const { issued, entries } = summary.data
    const signed = issued.reduce((sum, one) => sum + one.x509 + one.jwt + one.agent, 0)
    const refused = issued.reduce((sum, one) => sum + one.refused, 0)
    add(
      'SVIDs issued',
      number(signed),
      refused === 0 ? 'in the last hour' : `in the last hour; ${number(refused)} failed`,
      refused > 0 ? 'bad' : '',
    )
    add('Entries', number(entries), 'registered')
  }
  if (refusals.data !== undefined) {
    const recent = refusals.data.groups.filter(({ at }) => at > now - 3600)
    const latest = recent[0]
    add(
      'Refused nodes',
      number(recent.length),
      latest === undefined ? 'in the last hour' : `last ${distance(latest.at, now)}`,
      recent.length > 0 ? 'bad' : '',
    )
  }
  const next = nextEvent(keys.data?.keys ?? [])
  if (next !== undefined) {
    add(
      'Next key event',
      duration(next.nextEventAt - now),
      `${kinds[next.purpose] ?? 'key'} ${next.nextEvent}`,
    )
  }
  replace(byId('numbers'), tiles)
}
