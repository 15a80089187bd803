const numbers = new Intl.NumberFormat('en', { useGrouping: true })

/** @param {number} value a whole number, for people: `10,000` */
export const number = (value) => numbers.format(value)

/**
 * `1 node`, `2 nodes`.
 *
 * @param {number} of
 * @param {string} one
 */
export const count = (of, one, many = `${one}s`) => `${number(of)} ${of === 1 ? one : many}`

/** @type {readonly (readonly [string, number])[]} */
const units = [
  ['d', 86_400],
  ['h', 3600],
  ['m', 60],
  ['s', 1],
]

/**
 * Seconds as `assay` writes them: `3 d 4 h`, `12 m 5 s`.
 *
 * @param {number} seconds
 */
export function duration(seconds) {
  let rest = Math.max(0, Math.floor(seconds))
  const parts = []
  for (const [name, size] of units) {
    const whole = Math.floor(rest / size)
    rest -= whole * size
    if (whole > 0 || (name === 's' && parts.length === 0)) parts.push(`${whole} ${name}`)
    else if (parts.length > 0) break
    if (parts.length === 2) break
  }
  return parts.join(' ')
}

/**
 * RFC 3339 in UTC; empty for zero, which means "not set".
 *
 * @param {number} at Unix time
 */
export const time = (at) =>
  at === 0 ? '' : new Date(at * 1000).toISOString().replace(/\.\d+Z$/, 'Z')

/**
 * How far away a time is: `in 5 h 3 m`, `2 m 1 s ago`.
 *
 * @param {number} at Unix time
 * @param {number} now Unix time
 */
export function distance(at, now) {
  if (at === 0) return 'never'
  return at >= now ? `in ${duration(at - now)}` : `${duration(now - at)} ago`
}

/**
 * The end of something long, by which it is told apart: the last part of a SPIFFE ID, the beginning of a hash.
 *
 * @param {string} id
 */
export function short(id) {
  const last = id.slice(id.lastIndexOf('/') + 1)
  return last.length > 20 ? `${last.slice(0, 12)}…` : last
}
