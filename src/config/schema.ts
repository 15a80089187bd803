import { messageOf } from '#base/errors.ts'
import type { Problem } from './config-error.ts'
import { type Position, type Tree, treeOf, type Written } from './tree.ts'

/** What a reader returns after it has reported a problem. */
export const invalid: unique symbol = Symbol('invalid')

/** Where readers report to, and what they may need of the file. */
export interface Reading {
  /** The file as the operator named it. */
  readonly file: string
  /** Relative paths are resolved from here. */
  readonly directory: string
  readonly problems: Problem[]
}

/** Turns what stands in the file into a value, or reports why it cannot. */
export type Reader<T> = (tree: Tree, reading: Reading) => T | typeof invalid

/** What a schema accepts, for documentation. */
export type Shape =
  | {
      readonly kind: 'leaf'
      /** For people: `integer, 1 to 65535`. */
      readonly allowed: string
      /** The JSON Schema of the written form. */
      readonly json: Readonly<Record<string, unknown>>
    }
  | { readonly kind: 'list'; readonly item: Schema<unknown> }
  | { readonly kind: 'map'; readonly keyName: string; readonly value: Schema<unknown> }
  | {
      readonly kind: 'object'
      readonly fields: Readonly<Record<string, Schema<unknown>>>
      /** Groups of keys of which exactly one is given. */
      readonly exactlyOne: readonly (readonly string[])[]
    }
  | { readonly kind: 'one-of'; readonly choices: Readonly<Record<string, Schema<unknown>>> }

/** The type of value a schema makes. */
export type Value<S> = S extends Schema<infer T> ? T : never

interface Traits {
  readonly description: string
  readonly default: Written | undefined
  readonly optional: boolean
}

/**
 * How one value of a configuration file is read, and what the documentation says about it. Immutable: every
 * method makes a new one. A key is required unless it has a default or is optional.
 */
export class Schema<T> {
  readonly shape: Shape
  readonly #reader: Reader<T>
  readonly #traits: Traits

  constructor(
    shape: Shape,
    reader: Reader<T>,
    traits: Traits = { description: '', default: undefined, optional: false },
  ) {
    this.shape = shape
    this.#reader = reader
    this.#traits = traits
  }

  get description(): string {
    return this.#traits.description
  }

  /** The default as one would write it; undefined: there is none. */
  get written(): Written | undefined {
    return this.#traits.default
  }

  get required(): boolean {
    return !this.#traits.optional && this.#traits.default === undefined
  }

  /** Says in a sentence what the value is for, its unit and what it excludes. */
  describe(description: string): Schema<T> {
    return new Schema(this.shape, this.#reader, { ...this.#traits, description })
  }

  /** What stands for an absent key, written as in the file: `'24h'`. */
  default(written: Written): Schema<T> {
    return new Schema(this.shape, this.#reader, { ...this.#traits, default: written })
  }

  /** An absent key is `undefined`. */
  optional(): Schema<T | undefined> {
    return new Schema<T | undefined>(this.shape, this.#reader, { ...this.#traits, optional: true })
  }

  /** Makes another value of it. What `parse` throws becomes a problem of the key. */
  as<U>(parse: (value: T) => U): Schema<U> {
    return new Schema<U>(
      this.shape,
      (tree, reading) => {
        const value = this.#reader(tree, reading)
        if (value === invalid) return invalid
        try {
          return parse(value)
        } catch (error) {
          return report(reading, tree, messageOf(error))
        }
      },
      this.#traits,
    )
  }

  /** The value of what stands in the file. */
  read(tree: Tree, reading: Reading): T | typeof invalid {
    return this.#reader(tree, reading)
  }

  /** The value of an absent key, which would have stood in the mapping at `position`. */
  readAbsent(key: string, position: Position, reading: Reading): T | typeof invalid {
    if (this.#traits.default !== undefined) {
      return this.#reader(treeOf(this.#traits.default, key, position), reading)
    }
    // `optional()` is the only way to get here with a true flag, and it makes T include undefined.
    if (this.#traits.optional) return undefined as T
    return report(reading, { key, position }, `is missing; it is ${allowedText(this.shape)}`)
  }
}

/** Adds a problem, and returns what a reader returns then. */
export function report(
  reading: Reading,
  at: { readonly key: string; readonly position: Position },
  message: string,
): typeof invalid {
  reading.problems.push({ file: reading.file, ...at.position, key: at.key, message })
  return invalid
}

/** What a shape accepts, for people. */
export function allowedText(shape: Shape): string {
  switch (shape.kind) {
    case 'leaf':
      return shape.allowed
    case 'list':
      return `a list, each of ${allowedText(shape.item.shape)}`
    case 'map':
      return `a mapping by ${shape.keyName}`
    case 'object':
      return 'a mapping'
    case 'one-of':
      return `a mapping with exactly one of ${Object.keys(shape.choices).join(', ')}`
  }
}

/** What was found instead, short enough to print. */
function foundText(tree: Tree): string {
  switch (tree.value.kind) {
    case 'list':
      return 'a list'
    case 'map':
      return 'a mapping'
    case 'scalar': {
      const { scalar } = tree.value
      if (scalar === null) return 'nothing'
      const text = JSON.stringify(scalar)
      return text.length > 80 ? `${text.slice(0, 79)}…` : text
    }
  }
}

/** Reports that a value is of the wrong kind. */
export function reportWrong(reading: Reading, tree: Tree, allowed: string): typeof invalid {
  return report(reading, tree, `is ${foundText(tree)}; it must be ${allowed}`)
}
