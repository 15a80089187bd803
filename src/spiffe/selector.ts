/**
 * One attested fact about a node or a workload, in its text form `type:value`: `unix:uid:1000`. The type has
 * no colon, so the form is unambiguous. Only {@link parseSelector} and {@link selector} make one.
 */
export type Selector = string & { readonly [selectorBrand]: true }
declare const selectorBrand: unique symbol

/** @throws SyntaxError unless both parts are present and the type holds no colon. */
export function selector(type: string, value: string): Selector {
  if (type === '' || value === '' || type.includes(':')) {
    throw invalid(`${type}:${value}`)
  }
  return `${type}:${value}` as Selector
}

const invalid = (text: string): SyntaxError =>
  new SyntaxError(
    `invalid selector ${JSON.stringify(text)}: it must be type:value, and the type has no colon`,
  )

/** @throws SyntaxError when `text` is not `type:value`. */
export function parseSelector(text: string): Selector {
  const colon = text.indexOf(':')
  // Without a colon there is no type to be named.
  if (colon < 0) throw invalid(text)
  return selector(text.slice(0, colon), text.slice(colon + 1))
}

/** The part before the first colon. */
export const selectorType = (of: Selector): string => of.slice(0, of.indexOf(':'))

/** The part after the first colon. */
export const selectorValue = (of: Selector): string => of.slice(of.indexOf(':') + 1)

/** Sorted and without repetition: the one form in which selector sets are stored and compared. */
export function selectorSet(selectors: Iterable<Selector>): readonly Selector[] {
  return [...new Set(selectors)].sort()
}
