/** @import { Model } from './model.d.ts' */
import { byId, element, replace } from './document.js'
import { count, number } from './text.js'

/** What the server calls its parts, in words. */
const labels = /** @type {Record<string, string>} */ ({
  datastore: 'Datastore',
  'key-manager': 'Signing keys',
  authorities: 'Authorities',
  'server-svid': 'Server SVID',
  'upstream-authority': 'Upstream authority',
})

/**
 * The parts of the server that can be unwell. A word says how each is; the mark beside it repeats it.
 *
 * @param {Model} model
 */
export function renderHealth({ summary, keys, nodes }) {
  /** @type {(HTMLElement)[]} */
  const rows = []
  const add = (
    /** @type {string} */ label,
    /** @type {'ok' | 'warn' | 'bad' | 'unknown'} */ level,
    /** @type {string} */ word,
    detail = '',
  ) =>
    rows.push(
      element(
        'li',
        { class: `check ${level}` },
        element('span', { class: 'mark', 'aria-hidden': 'true' }),
        element('span', { class: 'check-name' }, label),
        element('span', { class: 'check-word' }, word),
        detail === '' ? undefined : element('span', { class: 'check-detail' }, detail),
      ),
    )
  if (summary.problem !== undefined) add('Server', 'unknown', 'not shown', summary.problem.message)
  const { wentBack = '' } = summary.data ?? {}
  if (wentBack !== '') {
    add(
      'Data',
      'bad',
      'older',
      `${wentBack} holds a newer state: was an old backup restored? See assay status`,
    )
  }
  for (const { name, ready, detail } of summary.data?.checks ?? []) {
    const label = labels[name] ?? name
    if (name === 'key-manager' && keys.data !== undefined) {
      const { state, where, pqWhere, detail: why } = keys.data
      const level = state === 'ok' ? 'ok' : state === 'degraded' ? 'warn' : 'bad'
      add(label, level, state, [why, where, pqWhere].filter((text) => text !== '').join('; '))
    } else if (!ready) add(label, 'bad', 'not ready', detail)
    else if (detail !== '') add(label, 'warn', 'look', detail)
    else
      add(
        label,
        'ok',
        'ok',
        name === 'datastore' ? `revision ${summary.data?.datastoreRevision}` : '',
      )
  }
  const versions = new Map()
  for (const { state, version } of nodes.values()) {
    if ((state === 'live' || state === 'lacking') && version !== '') {
      versions.set(version, (versions.get(version) ?? 0) + 1)
    }
  }
  if (versions.size > 0) {
    const texts = [...versions]
      .sort(([, a], [, b]) => b - a)
      .slice(0, 5)
      .map(([version, of]) => `${count(of, 'agent')} of ${version}`)
    const isOne = versions.size === 1
    add('Versions of live agents', 'ok', isOne ? 'one' : number(versions.size), texts.join(', '))
  }
  if (keys.problem !== undefined) add('Signing keys', 'unknown', 'not shown', keys.problem.message)
  replace(byId('checks'), rows)
}
