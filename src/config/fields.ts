import { resolve } from 'node:path'
import { utf8Bytes } from '#base/bytes.ts'
import { formatDuration, parseDuration } from './duration.ts'
import { reportWrong, Schema } from './schema.ts'

/** Text of 1 to `maxBytes` bytes of UTF-8 (4096). A number or a boolean has to be quoted to be text. */
export function text(options: { readonly maxBytes?: number } = {}): Schema<string> {
  const maxBytes = options.maxBytes ?? 4096
  const allowed = `text of 1 to ${maxBytes} bytes`
  return new Schema<string>(
    { kind: 'leaf', allowed, json: { type: 'string', minLength: 1, maxLength: maxBytes } },
    (tree, reading) => {
      if (tree.value.kind !== 'scalar' || typeof tree.value.scalar !== 'string') {
        return reportWrong(reading, tree, `${allowed} (quote what YAML takes for a number)`)
      }
      const value = tree.value.scalar
      if (value === '' || utf8Bytes(value).length > maxBytes) {
        return reportWrong(reading, tree, allowed)
      }
      return value
    },
  )
}

/** A whole number between `min` and `max`, both included. */
export function integer(range: {
  readonly min: number
  readonly max: number
  /** What it counts: `bytes`. Documentation only. */
  readonly unit?: string
}): Schema<number> {
  const { min, max, unit } = range
  const allowed = `an integer from ${min} to ${max}${unit === undefined ? '' : ` (${unit})`}`
  return new Schema<number>(
    { kind: 'leaf', allowed, json: { type: 'integer', minimum: min, maximum: max } },
    (tree, reading) => {
      const value = tree.value.kind === 'scalar' ? tree.value.scalar : undefined
      if (typeof value !== 'number' || !Number.isInteger(value) || value < min || value > max) {
        return reportWrong(reading, tree, allowed)
      }
      return value
    },
  )
}

/** A TCP port, 1 to 65535; with `{ ephemeral: true }` also 0, which lets the system choose. */
export function port(options: { readonly ephemeral?: boolean } = {}): Schema<number> {
  return integer({ min: options.ephemeral === true ? 0 : 1, max: 65_535, unit: 'TCP port' })
}

/** `true` or `false`. */
export function boolean(): Schema<boolean> {
  const allowed = 'true or false'
  return new Schema<boolean>(
    { kind: 'leaf', allowed, json: { type: 'boolean' } },
    (tree, reading) =>
      tree.value.kind === 'scalar' && typeof tree.value.scalar === 'boolean'
        ? tree.value.scalar
        : reportWrong(reading, tree, allowed),
  )
}

/** One of a few words. */
export function choice<const C extends string>(...choices: readonly C[]): Schema<C> {
  const allowed = `one of ${choices.join(', ')}`
  return new Schema<C>(
    { kind: 'leaf', allowed, json: { type: 'string', enum: choices } },
    (tree, reading) => {
      const value = tree.value.kind === 'scalar' ? tree.value.scalar : undefined
      return choices.find((word) => word === value) ?? reportWrong(reading, tree, allowed)
    },
  )
}

/** A duration such as `90s`, `15m`, `24h` or `1h30m`, as a whole number of seconds. Bounds are written likewise. */
export function duration(
  range: { readonly min?: string; readonly max?: string } = {},
): Schema<number> {
  const min = range.min ?? '0s'
  const max = range.max ?? '87600h'
  const minSeconds = parseDuration(min)
  const maxSeconds = parseDuration(max)
  const allowed = `a duration from ${formatDuration(minSeconds)} to ${formatDuration(maxSeconds)}, written like 90s, 15m, 24h or 1h30m`
  return new Schema<number>(
    {
      kind: 'leaf',
      allowed,
      json: { type: 'string', pattern: '^(?=[0-9])([0-9]+h)?([0-9]+m)?([0-9]+s)?$' },
    },
    (tree, reading) => {
      const value = tree.value.kind === 'scalar' ? tree.value.scalar : undefined
      if (typeof value !== 'string') return reportWrong(reading, tree, allowed)
      try {
        const seconds = parseDuration(value)
        return seconds >= minSeconds && seconds <= maxSeconds
          ? seconds
          : reportWrong(reading, tree, allowed)
      } catch {
        return reportWrong(reading, tree, allowed)
      }
    },
  )
}

/**
 * The path of a file or directory, made absolute from the configuration file's directory. Whether it exists is
 * not checked. A secret is always given like this, by a key that ends in `_file`, never inline.
 */
export function path(): Schema<string> {
  const allowed = 'a path of 1 to 4095 bytes'
  return new Schema<string>(
    { kind: 'leaf', allowed, json: { type: 'string', minLength: 1, maxLength: 4095 } },
    (tree, reading) => {
      const value = tree.value.kind === 'scalar' ? tree.value.scalar : undefined
      if (
        typeof value !== 'string' ||
        value === '' ||
        value.includes('\0') ||
        utf8Bytes(value).length > 4095
      ) {
        return reportWrong(reading, tree, allowed)
      }
      return resolve(reading.directory, value)
    },
  )
}
