/** @import { Node } from './model.d.ts' */
import { byId, element } from './document.js'
import { byNeed, colorOf, drawShape, stateOf, symbol } from './states.js'
import { count, number } from './text.js'

/** Of a cell and the gap beside it, in CSS pixels. */
const smallest = 6
const largest = 22
/** What the map should not be higher than, if cells can be small enough. */
const wantedHeight = 300

/**
 * Nodes of one state, each a cell of a canvas.
 *
 * @typedef {{
 *   section: HTMLElement, heading: HTMLElement, canvas: HTMLCanvasElement, nodes: readonly Node[], active: number,
 * }} Group
 */

/** What a node is called on the map. @param {Node} node */
export const titleOf = (node) => node.name || node.id.slice(node.id.lastIndexOf('/') + 1)

/** The nodes of a trust domain as a map: grouped by state, a shape and a colour for each. */
export class NodeMap {
  #host
  #tip
  #spoken
  #open
  /** @type {Map<string, Group>} */
  #groups = new Map()
  #pitch = largest
  #columns = 1

  /**
   * @param {HTMLElement} host
   * @param {(node: Node) => void} open called with the node that somebody wants to know more of
   */
  constructor(host, open) {
    this.#host = host
    this.#open = open
    this.#tip = byId('tip')
    this.#spoken = byId('spoken')
    new ResizeObserver(() => this.redraw()).observe(host)
  }

  /** @param {ReadonlyMap<string, readonly Node[]>} byState sorted nodes, by the name of their state */
  show(byState) {
    for (const name of byNeed) {
      const nodes = byState.get(name) ?? []
      let group = this.#groups.get(name)
      if (group === undefined) {
        if (nodes.length === 0) continue
        group = this.#newGroup(name)
        this.#groups.set(name, group)
        const after = byNeed
          .slice(byNeed.indexOf(name) + 1)
          .map((later) => this.#groups.get(later)?.section)
          .find((section) => section !== undefined)
        this.#host.insertBefore(group.section, after ?? null)
      }
      group.nodes = nodes
      group.active = Math.min(group.active, nodes.length - 1)
      group.section.hidden = nodes.length === 0
      const [label] = group.heading.querySelectorAll('span')
      if (label !== undefined) label.textContent = `${stateOf(name).label} `
      const [figure] = group.heading.querySelectorAll('b')
      if (figure !== undefined) figure.textContent = number(nodes.length)
      group.canvas.setAttribute(
        'aria-label',
        `${stateOf(name).label}: ${count(nodes.length, 'node')}. Arrow keys move, Enter opens.`,
      )
    }
    this.redraw()
  }

  redraw() {
    const width = this.#host.clientWidth
    let total = 0
    for (const { nodes } of this.#groups.values()) total += nodes.length
    if (width === 0 || total === 0) return
    const fitting = Math.floor(Math.sqrt((width * wantedHeight) / total))
    this.#pitch = Math.max(smallest, Math.min(largest, fitting))
    this.#columns = Math.max(1, Math.floor(width / this.#pitch))
    for (const [name, group] of this.#groups) this.#draw(name, group)
  }

  /** @param {string} name @param {Group} group */
  #draw(name, { canvas, nodes, active }) {
    const pitch = this.#pitch
    const columns = Math.min(this.#columns, Math.max(1, nodes.length))
    const rows = Math.ceil(nodes.length / this.#columns)
    const ratio = Math.max(1, devicePixelRatio)
    const [width, height] = [columns * pitch + 4, rows * pitch + 4]
    canvas.style.width = `${width}px`
    canvas.style.height = `${height}px`
    canvas.width = Math.round(width * ratio)
    canvas.height = Math.round(height * ratio)
    const context = canvas.getContext('2d')
    if (context === null) return
    context.scale(ratio, ratio)
    const gap = pitch > 12 ? 4 : pitch > 8 ? 2 : 1
    const color = colorOf(name)
    const { shape } = stateOf(name)
    for (let index = 0; index < nodes.length; index++) {
      const x = 2 + (index % this.#columns) * pitch + gap / 2
      const y = 2 + Math.floor(index / this.#columns) * pitch + gap / 2
      drawShape(context, shape, { x, y, size: pitch - gap, color })
    }
    if (active < 0) return
    context.strokeStyle = getComputedStyle(canvas).getPropertyValue('--ink')
    context.lineWidth = 2
    context.strokeRect(
      1 + (active % this.#columns) * pitch,
      1 + Math.floor(active / this.#columns) * pitch,
      pitch + 2,
      pitch + 2,
    )
  }

  /** @param {string} name */
  #newGroup(name) {
    const canvas = element('canvas', {
      tabindex: 0,
      role: 'application',
      'aria-roledescription': 'map of nodes',
      'data-state': name,
    })
    const heading = element('h3', {}, symbol(name), element('span'), element('b'))
    /** @type {Group} */
    const group = {
      section: element('section', { class: 'group' }, heading, canvas),
      heading,
      canvas,
      nodes: [],
      active: -1,
    }
    canvas.addEventListener('pointermove', (event) => this.#point(name, group, event))
    canvas.addEventListener('pointerleave', () => this.#activate(name, group, -1))
    canvas.addEventListener('click', () => this.#openActive(group))
    canvas.addEventListener('focus', () => {
      if (canvas.matches(':focus-visible')) this.#activate(name, group, Math.max(0, group.active))
    })
    canvas.addEventListener('blur', () => this.#activate(name, group, -1))
    canvas.addEventListener('keydown', (event) => this.#press(name, group, event))
    return group
  }

  /** @param {Group} group */
  #openActive({ nodes, active }) {
    const node = nodes[active]
    if (node !== undefined) this.#open(node)
  }

  /** @param {string} name @param {Group} group @param {PointerEvent} event */
  #point(name, group, event) {
    const column = Math.floor((event.offsetX - 2) / this.#pitch)
    const row = Math.floor((event.offsetY - 2) / this.#pitch)
    const index = row * this.#columns + column
    const isOne = column >= 0 && column < this.#columns && index >= 0 && index < group.nodes.length
    if (index !== group.active) this.#activate(name, group, isOne ? index : -1)
  }

  /** @param {string} name @param {Group} group @param {KeyboardEvent} event */
  #press(name, group, event) {
    const last = group.nodes.length - 1
    const moves = /** @type {Record<string, number>} */ ({
      ArrowRight: group.active + 1,
      ArrowLeft: group.active - 1,
      ArrowDown: group.active + this.#columns,
      ArrowUp: group.active - this.#columns,
      Home: 0,
      End: last,
    })
    const to = moves[event.key]
    if (to !== undefined) {
      event.preventDefault()
      this.#activate(name, group, Math.max(0, Math.min(last, to)), true)
    } else if (event.key === 'Enter' || event.key === ' ') {
      event.preventDefault()
      this.#openActive(group)
    }
  }

  /** @param {string} name @param {Group} group @param {number} index */
  #activate(name, group, index, aloud = false) {
    if (group.active !== index) {
      group.active = index
      this.#draw(name, group)
    }
    const node = group.nodes[index]
    this.#tip.hidden = node === undefined
    if (node === undefined) return
    const text = `${titleOf(node)}, ${stateOf(name).label.toLowerCase()}`
    this.#tip.textContent = text
    if (aloud) this.#spoken.textContent = text
    const place = group.canvas.getBoundingClientRect()
    const x = place.left + ((index % this.#columns) + 0.5) * this.#pitch
    const y = place.top + (Math.floor(index / this.#columns) + 1) * this.#pitch
    this.#tip.style.left = `${Math.max(4, Math.min(x, innerWidth - this.#tip.offsetWidth - 8))}px`
    this.#tip.style.top = `${y + 8}px`
  }
}
