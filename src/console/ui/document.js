/**
 * An element with attributes and children. Text is text: nothing that a stranger wrote becomes markup.
 *
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Record<string, string | number | boolean | undefined>} [attributes] `false` and undefined are left out
 * @param {...(Node | string | undefined)} children
 * @returns {HTMLElementTagNameMap[T]}
 */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === false) continue
    made.setAttribute(name, value === true ? '' : String(value))
  }
  made.append(...children.filter((child) => child !== undefined))
  return made
}

/**
 * The element with this id, which the page has.
 *
 * @param {string} id
 * @returns {HTMLElement}
 */
export function byId(id) {
  const found = document.getElementById(id)
  if (found === null) throw new TypeError(`the page has no #${id}`)
  return found
}

/**
 * Gives `parent` other children, and the focus back to the one that had it, by its data-key.
 *
 * @param {HTMLElement} parent
 * @param {readonly Node[]} children
 */
export function replace(parent, children) {
  const focused = document.activeElement
  const key =
    focused instanceof HTMLElement && parent.contains(focused) ? focused.dataset['key'] : undefined
  parent.replaceChildren(...children)
  if (key === undefined) return
  const again = parent.querySelector(`[data-key="${CSS.escape(key)}"]`)
  if (again instanceof HTMLElement) again.focus({ preventScroll: true })
}

/**
 * Text in which what stands between back quotes is code.
 *
 * @param {string} text
 * @returns {Node[]}
 */
export function prose(text) {
  return text
    .split('`')
    .map((part, index) =>
      index % 2 === 1 ? element('code', {}, part) : document.createTextNode(part),
    )
}

/**
 * Names and values, side by side. Those without a value are left out.
 *
 * @param {readonly (readonly [string, string | Node | undefined])[]} pairs
 */
export function fields(pairs) {
  const list = element('dl', { class: 'fields' })
  for (const [name, value] of pairs) {
    if (value === undefined || value === '') continue
    list.append(element('dt', {}, name), element('dd', {}, value))
  }
  return list
}

/**
 * What stands where there is nothing to show, and what to do next.
 *
 * @param {string} text with code between back quotes
 */
export const empty = (text) => element('p', { class: 'empty' }, ...prose(text))

/**
 * Whether somebody asked for less motion.
 */
export const isStill = () => matchMedia('(prefers-reduced-motion: reduce)').matches
