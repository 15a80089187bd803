// JSON as security documents need it (RFC 8259, RFC 7515 §4, RFC 7517 §4): a member that stands twice is an
// error, not "the last one wins", and an integer that a double cannot hold is a bigint, not its neighbour.

export type Json = null | boolean | number | bigint | string | readonly Json[] | JsonObject
export interface JsonObject {
  readonly [member: string]: Json
}

export interface JsonLimits {
  readonly maxCharacters: number
  /** Deepest nesting of arrays and objects. */
  readonly maxDepth?: number
}

/**
 * Parses `text`; an integer outside ±(2^53 - 1) becomes a bigint.
 *
 * @throws SyntaxError when it is not JSON, too long, nested too deep, or has a member twice in one object.
 */
export function parseJson(text: string, limits: JsonLimits): Json {
  if (text.length > limits.maxCharacters) {
    throw new SyntaxError(`invalid JSON: longer than ${limits.maxCharacters} characters`)
  }
  refuseDuplicates(text, limits.maxDepth ?? 16)
  return sourceJson.parse(text, lossless) as Json
}

/** @throws SyntaxError unless `value` is an object, or unless `what` it is. */
export function jsonObject(value: Json | undefined, what: string): JsonObject {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new SyntaxError(`${what} is not a JSON object`)
  }
  return value as JsonObject
}

/** A member that the object itself has; never one that every object inherits. */
export function jsonMember(object: JsonObject, name: string): Json | undefined {
  return Object.hasOwn(object, name) ? object[name] : undefined
}

/** A member that is a string; undefined when it is absent. @throws SyntaxError for another type. */
export function stringMember(object: JsonObject, name: string): string | undefined {
  const value = jsonMember(object, name)
  if (value !== undefined && typeof value !== 'string') {
    throw new SyntaxError(`member ${JSON.stringify(name)} is not a string`)
  }
  return value
}

/** `JSON.stringify` that writes a bigint as an integer. */
export function stringifyJson(value: Json, indent?: number): string {
  return JSON.stringify(
    value,
    (_key, item: unknown) =>
      typeof item === 'bigint' ? sourceJson.rawJSON(item.toString()) : item,
    indent,
  )
}

/** ECMAScript's JSON.parse with source text, which TypeScript's library does not declare yet. */
const sourceJson = JSON as unknown as {
  parse(text: string, reviver: typeof lossless): unknown
  rawJSON(text: string): unknown
}

function lossless(_key: string, value: unknown, context: { source?: string }): unknown {
  if (typeof value !== 'number' || Number.isSafeInteger(value)) return value
  return context.source !== undefined && /^-?\d+$/.test(context.source)
    ? BigInt(context.source)
    : value
}

/**
 * One pass over the tokens. It judges only what JSON.parse does not: text that is not JSON may pass here, and
 * never changes which member names are seen in text that is.
 */
function refuseDuplicates(text: string, maxDepth: number): void {
  const token = /"(?:[^"\\]|\\.)*"|[{}[\],:]/gs
  const open: (Set<string> | undefined)[] = []
  let expectsName = false
  for (let match = token.exec(text); match !== null; match = token.exec(text)) {
    const [found] = match
    switch (found[0]) {
      case '{':
      case '[':
        open.push(found === '{' ? new Set() : undefined)
        if (open.length > maxDepth) throw new SyntaxError(`invalid JSON: deeper than ${maxDepth}`)
        expectsName = found === '{'
        break
      case '}':
      case ']':
        open.pop()
        expectsName = false
        break
      case ',':
        expectsName = open[open.length - 1] !== undefined
        break
      case '"': {
        if (!expectsName) break
        const name: unknown = JSON.parse(found)
        const members = open[open.length - 1]
        if (typeof name !== 'string' || members === undefined) break
        if (members.has(name)) {
          throw new SyntaxError(
            `invalid JSON: member ${JSON.stringify(name.slice(0, 64))} is there twice`,
          )
        }
        members.add(name)
        expectsName = false
        break
      }
      default:
        break
    }
  }
}
