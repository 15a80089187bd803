import { messageOf } from '#base/errors.ts'
import { nearest } from './nearest.ts'
import {
  allowedText,
  invalid,
  type Reading,
  report,
  reportWrong,
  Schema,
  type Value,
} from './schema.ts'
import type { Tree, TreeEntry } from './tree.ts'

type Fields = Readonly<Record<string, Schema<unknown>>>
type Values<F extends Fields> = { readonly [K in keyof F]: Value<F[K]> }

/** A value made by one of several mappings, told apart by `kind`. */
export type OneOf<F extends Readonly<Record<string, Schema<object>>>> = {
  readonly [K in keyof F & string]: { readonly kind: K } & Value<F[K]>
}[keyof F & string]

/**
 * A mapping with known keys. An unknown key is a problem, and its message names the nearest known one.
 * `exactlyOne` lists groups of optional keys of which exactly one must be given.
 */
export function object<const F extends Fields>(
  fields: F,
  options: { readonly exactlyOne?: readonly (readonly (keyof F & string)[])[] } = {},
): Schema<Values<F>> {
  const exactlyOne = options.exactlyOne ?? []
  return new Schema<Values<F>>({ kind: 'object', fields, exactlyOne }, (tree, reading) => {
    const entries = entriesOf(tree)
    if (entries === undefined) return reportWrong(reading, tree, 'a mapping')
    const problemsBefore = reading.problems.length
    reportUnknown(entries, Object.keys(fields), reading)
    for (const keys of exactlyOne) {
      const given = keys.filter((key) => entries.has(key))
      if (given.length === 1) continue
      const found =
        given.length === 0 ? 'none of them is given' : `${given.join(' and ')} are given`
      report(reading, tree, `exactly one of ${keys.join(', ')} must be given; ${found}`)
    }
    const values: Record<string, unknown> = {}
    for (const [name, schema] of Object.entries(fields)) {
      const entry = entries.get(name)
      values[name] =
        entry === undefined
          ? schema.readAbsent(childKey(tree, name), tree.position, reading)
          : schema.read(entry.tree, reading)
    }
    return reading.problems.length > problemsBefore ? invalid : (values as Values<F>)
  })
}

/**
 * A mapping with exactly one key, which says which of several things it is: `sqlite: { path: … }`. The value is
 * what that key's schema makes, with the key as `kind`.
 */
export function oneOf<const F extends Readonly<Record<string, Schema<object>>>>(
  choices: F,
): Schema<OneOf<F>> {
  const shape = { kind: 'one-of', choices } as const
  return new Schema<OneOf<F>>(shape, (tree, reading) => {
    const entries = entriesOf(tree)
    if (entries === undefined) return reportWrong(reading, tree, allowedText(shape))
    const problemsBefore = reading.problems.length
    reportUnknown(entries, Object.keys(choices), reading)
    if (reading.problems.length > problemsBefore) return invalid
    const [first, second] = entries
    if (first === undefined || second !== undefined) {
      const given = [...entries.keys()].join(' and ')
      const names = Object.keys(choices).join(', ')
      return report(
        reading,
        tree,
        `exactly one of ${names} must be given; ${given === '' ? 'none is' : `${given} are`}`,
      )
    }
    const [kind, entry] = first
    const value = choices[kind]?.read(entry.tree, reading) ?? invalid
    return value === invalid ? invalid : ({ ...value, kind } as OneOf<F>)
  })
}

/** A list of up to 10,000 values. */
export function list<T>(item: Schema<T>): Schema<readonly T[]> {
  return new Schema<readonly T[]>({ kind: 'list', item }, (tree, reading) => {
    if (tree.value.kind !== 'list') return reportWrong(reading, tree, 'a list')
    if (tree.value.items.length > 10_000) return report(reading, tree, 'has more than 10000 items')
    const values: T[] = []
    for (const child of tree.value.items) {
      const value = item.read(child, reading)
      if (value !== invalid) values.push(value)
    }
    return values.length === tree.value.items.length ? values : invalid
  })
}

/**
 * A mapping whose keys are the operator's: `keyName` says what they are, `parseKey` checks them and throws.
 */
export function map<K, T>(
  key: { readonly name: string; readonly parse: (text: string) => K },
  value: Schema<T>,
): Schema<ReadonlyMap<K, T>> {
  return new Schema<ReadonlyMap<K, T>>(
    { kind: 'map', keyName: key.name, value },
    (tree, reading) => {
      const entries = entriesOf(tree)
      if (entries === undefined) return reportWrong(reading, tree, `a mapping by ${key.name}`)
      const problemsBefore = reading.problems.length
      const values = new Map<K, T>()
      for (const [name, entry] of entries) {
        const child = value.read(entry.tree, reading)
        try {
          const parsed = key.parse(name)
          if (child !== invalid) values.set(parsed, child)
        } catch (error) {
          report(reading, { key: entry.tree.key, position: entry.position }, messageOf(error))
        }
      }
      return reading.problems.length > problemsBefore ? invalid : values
    },
  )
}

const none: ReadonlyMap<string, TreeEntry> = new Map()

/** `memory:` with nothing after it is the empty mapping, as `memory: {}` is. */
function entriesOf(tree: Tree): ReadonlyMap<string, TreeEntry> | undefined {
  if (tree.value.kind === 'map') return tree.value.entries
  return tree.value.kind === 'scalar' && tree.value.scalar === null ? none : undefined
}

function childKey(tree: Tree, name: string): string {
  return tree.key === '' ? name : `${tree.key}.${name}`
}

function reportUnknown(
  entries: ReadonlyMap<string, TreeEntry>,
  known: readonly string[],
  reading: Reading,
): void {
  for (const [name, { tree, position }] of entries) {
    if (known.includes(name)) continue
    const near = nearest(name, known)
    const hint = known.includes(`${name}_file`)
      ? `a secret is never written here: put it into a file and give ${name}_file`
      : near !== undefined
        ? `did you mean ${near}?`
        : known.length === 0
          ? 'no keys are allowed here'
          : `allowed are ${known.join(', ')}`
    report(reading, { key: tree.key, position }, `unknown key; ${hint}`)
  }
}
