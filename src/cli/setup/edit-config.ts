import { isDeepStrictEqual } from 'node:util'
import { isMap, parseDocument } from 'yaml'

/** A key by its path, and what it is to be. Undefined: it goes, which a key on one line at the top can. */
export type Change = readonly [path: readonly string[], value: unknown]

/**
 * A configuration in which keys have new values. Everything else stays as it stands there, comments too. A key whose value
 * is the same already is not touched.
 *
 * @throws SyntaxError when the text is not YAML of one mapping.
 */
export function editConfig(text: string, changes: readonly Change[]): string {
  // By its line, because what a document loses takes the comments above it along.
  const gone = changes.filter(([path, value]) => path.length === 1 && value === undefined)
  const kept = text
    .split('\n')
    .filter((line) => !gone.some(([[key]]) => line.startsWith(`${key}:`)))
  const document = parseDocument(kept.join('\n'))
  const [error] = document.errors
  if (error !== undefined) throw new SyntaxError(`it is not YAML: ${error.message}`)
  if (document.contents !== null && !isMap(document.contents)) {
    throw new SyntaxError('it is not a mapping')
  }
  for (const [path, value] of changes) {
    if (isDeepStrictEqual(valueAt(document.toJS(), path), value)) continue
    document.setIn(path, document.createNode(value, { flow: true }))
  }
  return document.toString({ lineWidth: 120, flowCollectionPadding: true })
}

/** What a configuration says at a path, before anything is checked; undefined: nothing, or it is not YAML. */
export const valueIn = (text: string, path: readonly string[]): unknown => {
  const document = parseDocument(text)
  return document.errors.length > 0 ? undefined : valueAt(document.toJS(), path)
}

function valueAt(root: unknown, path: readonly string[]): unknown {
  let value = root
  for (const name of path) {
    if (typeof value !== 'object' || value === null) return undefined
    value = (value as Record<string, unknown>)[name]
  }
  return value
}

/** What changed between two texts: lines that went, with `-`, and lines that came, with `+`, in their order. */
export function changedLines(before: string, after: string): readonly string[] {
  const [old, now] = [before, after].map((text) => text.split('\n')) as [string[], string[]]
  // Lengths of the longest common subsequences from each pair of lines on.
  const common = Array.from({ length: old.length + 1 }, () => new Uint16Array(now.length + 1))
  for (let i = old.length - 1; i >= 0; i--) {
    for (let j = now.length - 1; j >= 0; j--) {
      const row = common[i]
      if (row === undefined) continue
      row[j] =
        old[i] === now[j]
          ? (common[i + 1]?.[j + 1] ?? 0) + 1
          : Math.max(common[i + 1]?.[j] ?? 0, row[j + 1] ?? 0)
    }
  }
  const lines: string[] = []
  let [i, j] = [0, 0]
  while (i < old.length || j < now.length) {
    if (i < old.length && j < now.length && old[i] === now[j]) {
      i++
      j++
    } else if (
      i < old.length &&
      (j >= now.length || (common[i + 1]?.[j] ?? 0) >= (common[i]?.[j + 1] ?? 0))
    ) {
      lines.push(`- ${old[i++]}`)
    } else lines.push(`+ ${now[j++]}`)
  }
  return lines
}
