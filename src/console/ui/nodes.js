/** @import { Model, Node, NodeDetails } from './model.d.ts' */
import { byId, element, empty, fields, prose, replace } from './document.js'
import { request } from './events.js'
import { NodeMap, titleOf } from './map.js'
import { byNeed, stateOf, states, symbol } from './states.js'
import { count, distance, number, time } from './text.js'

/** Rows of the table at first, and how many more each time. */
const page = 200

/** The panel of nodes: a map or a table of them, a filter, and what is known of one. */
export class NodesPanel {
  #map
  /** @type {Model | undefined} */
  #model
  #filter = ''
  /** @type {Set<string>} those to be shown; none: all */
  #chosen = new Set()
  #isTable = false
  #rows = page
  /** @type {string | undefined} */
  #opened
  #dialog = /** @type {HTMLDialogElement} */ (byId('node'))

  constructor() {
    this.#map = new NodeMap(byId('map'), (node) => this.#openNode(node))
    const filter = /** @type {HTMLInputElement} */ (byId('filter'))
    filter.addEventListener('input', () => {
      this.#filter = filter.value.trim().toLowerCase()
      this.#rows = page
      this.#render()
    })
    for (const radio of document.querySelectorAll('input[name="view"]')) {
      radio.addEventListener('change', () => {
        this.#isTable = /** @type {HTMLInputElement} */ (radio).value === 'table'
        this.#render()
      })
    }
    byId('legend').addEventListener('click', (event) => {
      const button = event.target instanceof Element ? event.target.closest('button') : null
      const name = button?.dataset['state']
      if (name === undefined) return
      if (!this.#chosen.delete(name)) this.#chosen.add(name)
      this.#render()
    })
    byId('table').addEventListener('click', (event) => {
      const button = event.target instanceof Element ? event.target.closest('button') : null
      if (button === null) return
      const node = this.#model?.nodes.get(button.dataset['key'] ?? '')
      if (node !== undefined) this.#openNode(node)
      else {
        this.#rows += page
        this.#render()
      }
    })
    this.#dialog.addEventListener('close', () => {
      this.#opened = undefined
    })
  }

  /** @param {Model} model */
  render(model) {
    this.#model = model
    this.#render()
  }

  /** Draws again what is on a canvas, in the colours of now. */
  redraw() {
    this.#map.redraw()
  }

  #render() {
    const model = this.#model
    if (model === undefined) return
    /** @type {Map<string, Node[]>} */
    const all = new Map()
    /** @type {Map<string, Node[]>} */
    const shown = new Map()
    let found = 0
    for (const node of model.nodes.values()) {
      gather(all, node)
      if (this.#chosen.size > 0 && !this.#chosen.has(node.state)) continue
      if (this.#filter !== '' && !isMatch(node, this.#filter)) continue
      gather(shown, node)
      found++
    }
    for (const nodes of shown.values()) nodes.sort(byTitle)
    this.#renderLegend(all)
    byId('node-count').textContent = !model.nodesKnown
      ? ''
      : found === model.nodes.size
        ? number(found)
        : `${number(found)} of ${number(model.nodes.size)}`
    const nothing = byId('no-node')
    const { missing, nodesKnown } = model
    const why = missing.nodes?.message ?? (found === 0 ? missing.inventory?.message : undefined)
    nothing.hidden = (!nodesKnown || found > 0) && missing.nodes === undefined
    if (!nothing.hidden) {
      replace(nothing, [
        why !== undefined
          ? empty(why)
          : model.nodes.size > 0
            ? empty('No node is like that. Take words out of the filter.')
            : empty(
                'No node has attested yet. `assay bundle show > bundle.pem` here, `assay-agent run` there, and `assay inventory pending` shows that it knocks.',
              ),
      ])
    }
    byId('map').hidden = this.#isTable
    byId('table').hidden = !this.#isTable
    if (this.#isTable) this.#renderTable(shown, found)
    else this.#map.show(shown)
    this.#renderOpened()
  }

  /** @param {ReadonlyMap<string, readonly Node[]>} all */
  #renderLegend(all) {
    const buttons = states
      .filter(({ name }) => (all.get(name)?.length ?? 0) > 0 || this.#chosen.has(name))
      .map(({ name, label, meaning }) =>
        element(
          'button',
          {
            type: 'button',
            'aria-pressed': String(this.#chosen.has(name)),
            'data-state': name,
            'data-key': `state ${name}`,
            title: meaning,
          },
          symbol(name),
          `${label} `,
          element('b', {}, number(all.get(name)?.length ?? 0)),
        ),
      )
    const legend = byId('legend')
    const text = buttons.map((button) => `${button.textContent} ${button.ariaPressed}`).join()
    if (legend.dataset['text'] === text) return
    legend.dataset['text'] = text
    replace(legend, buttons)
  }

  /** @param {ReadonlyMap<string, readonly Node[]>} shown @param {number} found */
  #renderTable(shown, found) {
    const now = this.#model?.now ?? 0
    const nodes = byNeed.flatMap((name) => shown.get(name) ?? []).slice(0, this.#rows)
    const headings = ['Node', 'State', 'SVID expires', 'SVIDs', 'Agent', 'Address']
    const rows = nodes.map((node) =>
      element(
        'tr',
        {},
        element(
          'th',
          { scope: 'row' },
          element('button', { type: 'button', 'data-key': node.id, title: node.id }, titleOf(node)),
        ),
        element('td', {}, symbol(node.state), stateOf(node.state).label),
        element('td', {}, node.expiresAt === 0 ? '' : distance(node.expiresAt, now)),
        element('td', { class: 'right' }, node.svids === 0 ? '' : number(node.svids)),
        element('td', {}, node.version),
        element('td', {}, node.address),
      ),
    )
    const table = element(
      'table',
      {},
      element('caption', {}, `${count(found, 'node')}, those that need somebody first`),
      element(
        'thead',
        {},
        element('tr', {}, ...headings.map((heading) => element('th', { scope: 'col' }, heading))),
      ),
      element('tbody', {}, ...rows),
    )
    const more = found - nodes.length
    replace(byId('table'), [
      table,
      ...(more > 0
        ? [
            element(
              'button',
              { type: 'button', 'data-key': 'more' },
              `Show ${number(Math.min(page, more))} more of ${number(more)}`,
            ),
          ]
        : []),
    ])
  }

  /** @param {Node} node */
  #openNode(node) {
    this.#opened = node.id
    replace(byId('node-selectors'), [])
    this.#renderOpened()
    if (!this.#dialog.open) this.#dialog.showModal()
    if (node.id.startsWith('spiffe:')) void this.#loadDetails(node.id)
  }

  /** @param {string} id */
  async #loadDetails(id) {
    const host = byId('node-selectors')
    try {
      const response = await request(`/node?id=${encodeURIComponent(id)}`)
      const answer = await response.json()
      if (this.#opened !== id) return
      if (!response.ok) return replace(host, [empty(answer.error)])
      const details = /** @type {NodeDetails} */ (answer)
      replace(host, [
        fields([
          ['Serial number', details.serialNumber],
          ['Renews by', details.canReattest ? 'attesting again' : 'its SVID'],
          [
            'Selectors',
            details.selectors.length === 0
              ? 'none'
              : element(
                  'ul',
                  {},
                  ...details.selectors.map((text) => element('li', {}, element('code', {}, text))),
                ),
          ],
        ]),
      ])
    } catch {
      // The page says already that the console is gone.
    }
  }

  #renderOpened() {
    const model = this.#model
    const node = model?.nodes.get(this.#opened ?? '')
    if (model === undefined || this.#opened === undefined) return
    if (node === undefined) return this.#dialog.close()
    const state = stateOf(node.state)
    byId('node-title').textContent = titleOf(node)
    const hash = node.id.slice(node.id.lastIndexOf('/') + 1)
    const refusal = model.refusals.data?.groups.find(
      ({ subject }) => subject !== '' && (subject === node.id || subject === hash),
    )
    const named = state.next
      .replaceAll('HASH', hash.slice(0, 8))
      .replaceAll('NAME', node.name || 'NAME')
    replace(byId('node-body'), [
      element('p', { class: 'node-state' }, symbol(node.state), element('strong', {}, state.label)),
      element('p', {}, state.meaning),
      ...(named === '' ? [] : [element('p', { class: 'remedy' }, ...prose(named))]),
      fields([
        [
          node.id.startsWith('spiffe:') ? 'SPIFFE ID' : 'Endorsement key',
          element('code', {}, node.id),
        ],
        ['Attested by', node.type],
        ['Agent version', node.version],
        ['Address', node.address],
        [
          'Attested',
          node.attestedAt === 0
            ? ''
            : `${time(node.attestedAt)} (${distance(node.attestedAt, model.now)})`,
        ],
        [
          'SVID expires',
          node.expiresAt === 0
            ? ''
            : `${time(node.expiresAt)} (${distance(node.expiresAt, model.now)})`,
        ],
        ['X.509-SVIDs', node.svids === 0 ? '' : number(node.svids)],
        ['Says it is', node.description],
        [
          'Last refusal',
          refusal === undefined
            ? ''
            : `${refusal.reason}, ${distance(refusal.at, model.now)}: ${refusal.meaning || refusal.message}`,
        ],
      ]),
    ])
  }
}

/** @param {Map<string, Node[]>} groups @param {Node} node */
function gather(groups, node) {
  const group = groups.get(node.state)
  if (group === undefined) groups.set(node.state, [node])
  else group.push(node)
}

/** @param {Node} node @param {string} words lower case; all of them must be somewhere */
const isMatch = (node, words) => {
  const text =
    `${node.name} ${node.id} ${node.state} ${stateOf(node.state).label} ${node.type} ${node.version} ${node.address} ${node.description}`.toLowerCase()
  return words.split(/\s+/).every((word) => text.includes(word))
}

/** @param {Node} a @param {Node} b */
function byTitle(a, b) {
  const [x, y] = [titleOf(a), titleOf(b)]
  return x < y ? -1 : x > y ? 1 : 0
}
