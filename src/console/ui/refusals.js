/** @import { Model, RefusalGroup } from './model.d.ts' */
import { byId, element, empty, fields, prose, replace } from './document.js'
import { count, distance, number, short, time } from './text.js'

/** @param {RefusalGroup} group */
const keyOf = ({ reason, subject, address }) => `${reason} ${subject === '' ? address : subject}`

let rendered = ''

/**
 * Attestations that were refused, newest first. What it means and what to do is shown of each at once: whoever reads it
 * is in a hurry.
 *
 * @param {Model} model
 */
export function renderRefusals({ refusals, nodes, now }) {
  const panel = byId('refusal-list')
  const heading = byId('refusal-count')
  if (refusals.data === undefined) {
    heading.textContent = ''
    if (refusals.problem !== undefined) replace(panel, [empty(refusals.problem.message)])
    return
  }
  const { groups, total } = refusals.data
  heading.textContent = total === 0 ? '' : number(total)
  // Times go on; what was written does not, and somebody may be selecting it.
  const text = JSON.stringify(groups)
  if (text === rendered) {
    for (const stamp of panel.querySelectorAll('time')) {
      stamp.textContent = distance(Number(stamp.dataset['at']), now)
    }
    return
  }
  rendered = text
  if (groups.length === 0) {
    replace(panel, [
      empty(
        'No attestation was refused since the server started. `assay refusal list --server` lists them too.',
      ),
    ])
    return
  }
  const open = new Set(
    [...panel.querySelectorAll('details[open]')].map(
      (one) => /** @type {HTMLElement} */ (one).dataset['of'],
    ),
  )
  replace(
    panel,
    groups.slice(0, 50).map((group) => {
      const node = [...nodes.values()].find(
        ({ id, name }) => name !== '' && group.subject !== '' && id.endsWith(group.subject),
      )
      const who = node?.name || (group.subject === '' ? group.address : short(group.subject))
      const key = keyOf(group)
      return element(
        'article',
        { class: 'refusal', 'aria-label': `${group.reason}, ${who}` },
        element(
          'header',
          {},
          element('strong', {}, who),
          element('code', { class: 'reason' }, group.reason),
          element(
            'span',
            { class: 'when' },
            element(
              'time',
              { datetime: time(group.at), title: time(group.at), 'data-at': group.at },
              distance(group.at, now),
            ),
            group.count > 1 ? `, ${number(group.count)} times` : '',
          ),
        ),
        element('p', {}, ...prose(group.meaning === '' ? group.message : group.meaning)),
        group.remedy === '' ? undefined : element('p', { class: 'remedy' }, ...prose(group.remedy)),
        element(
          'details',
          { 'data-of': key, open: open.has(key) },
          element('summary', { 'data-key': key }, 'Evidence'),
          fields([
            ['Message', group.message],
            ['From', group.address],
            ['Subject', group.subject],
            ['Attestation', group.attestationType],
            ['Request', group.requestId],
            ['At', time(group.at)],
            ['First', group.count > 1 ? time(group.firstAt) : ''],
          ]),
        ),
      )
    }),
  )
  if (groups.length > 50) {
    panel.append(
      empty(`${count(groups.length - 50, 'more group')}: \`assay refusal list --server\``),
    )
  }
}
