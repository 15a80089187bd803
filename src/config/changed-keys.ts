import { isDeepStrictEqual } from 'node:util'

/** The keys at the top of two configurations whose values differ, in the order of `before`. */
export function changedKeys<C extends object>(before: C, after: C): readonly (keyof C & string)[] {
  const keys = Object.keys(before) as (keyof C & string)[]
  return keys.filter((key) => !isDeepStrictEqual(before[key], after[key]))
}
