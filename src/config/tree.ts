import { isAlias, isMap, isScalar, isSeq, LineCounter, type Node, parseAllDocuments } from 'yaml'
import type { Problem } from './config-error.ts'

/** Where something stands in the file; both from 1. */
export interface Position {
  readonly line: number
  readonly column: number
}

/** A value as it stands in the file, not yet checked. */
export interface Tree {
  /** The path of keys that leads here; empty at the root. */
  readonly key: string
  readonly position: Position
  readonly value:
    | { readonly kind: 'scalar'; readonly scalar: string | number | boolean | null }
    | { readonly kind: 'list'; readonly items: readonly Tree[] }
    | { readonly kind: 'map'; readonly entries: ReadonlyMap<string, TreeEntry> }
}

/** One `key: value` of a mapping. */
export interface TreeEntry {
  /** Where the key stands; the value's own position is in `tree`. */
  readonly position: Position
  readonly tree: Tree
}

/** Longest configuration that is read, in characters. */
const maxConfigCharacters = 1_048_576

/** Deeper nesting than any schema has; bounds the recursion. */
const maxDepth = 32

const start: Position = { line: 1, column: 1 }

/**
 * Reads one YAML 1.2 document (core schema) and keeps where everything stands. Aliases, tags and keys that
 * are not text are refused: a configuration says what it means where it says it.
 *
 * @returns the tree, or every syntax problem found.
 */
export function parseTree(
  text: string,
  file: string,
): { readonly tree: Tree; readonly problems: readonly Problem[] } {
  const problems: Problem[] = []
  const report = (position: Position, key: string, message: string): void => {
    problems.push({ file, ...position, key, message })
  }
  const empty: Tree = { key: '', position: start, value: { kind: 'map', entries: new Map() } }
  if (text.length > maxConfigCharacters) {
    report(start, '', `the file is longer than ${maxConfigCharacters} characters`)
    return { tree: empty, problems }
  }

  const lines = new LineCounter()
  const positionAt = (offset: number): Position => {
    const { line, col } = lines.linePos(offset)
    return { line, column: col }
  }
  const documents = parseAllDocuments(text, {
    lineCounter: lines,
    prettyErrors: false,
    version: '1.2',
    schema: 'core',
    stringKeys: true,
  })
  if (!Array.isArray(documents)) return { tree: empty, problems }
  for (const { errors } of documents) {
    for (const error of errors) {
      const what = error.code === 'DUPLICATE_KEY' ? 'the key is given twice' : error.message
      report(positionAt(error.pos[0]), '', `not valid YAML: ${what}`)
    }
  }
  const [document, second] = documents
  if (second !== undefined) {
    report(positionAt(second.range[0]), '', 'a second document begins here; one is allowed')
  }
  if (problems.length > 0 || document === undefined) return { tree: empty, problems }

  const convert = (node: Node | null, key: string, fallback: Position, depth: number): Tree => {
    const position = node?.range ? positionAt(node.range[0]) : fallback
    const scalar = (value: string | number | boolean | null): Tree => ({
      key,
      position,
      value: { kind: 'scalar', scalar: value },
    })
    if (node === null) return scalar(null)
    if (depth > maxDepth) {
      report(position, key, `nested deeper than ${maxDepth} levels`)
      return scalar(null)
    }
    if (isAlias(node)) {
      report(position, key, 'an alias (*) is not allowed: write the value out')
      return scalar(null)
    }
    if (node.tag?.startsWith('!')) {
      report(position, key, `the tag ${node.tag} is not allowed`)
      return scalar(null)
    }
    if (isMap<Node, Node | null>(node)) {
      const entries = new Map<string, TreeEntry>()
      for (const pair of node.items) {
        const keyPosition = pair.key.range ? positionAt(pair.key.range[0]) : position
        const name = isScalar(pair.key) ? String(pair.key.value) : ''
        const path = key === '' ? name : `${key}.${name}`
        entries.set(name, {
          position: keyPosition,
          tree: convert(pair.value, path, keyPosition, depth + 1),
        })
      }
      return { key, position, value: { kind: 'map', entries } }
    }
    if (isSeq<Node | null>(node)) {
      const items = node.items.map((item, index) =>
        convert(item, `${key}[${index}]`, position, depth + 1),
      )
      return { key, position, value: { kind: 'list', items } }
    }
    const value = isScalar(node) ? node.value : null
    if (typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean') {
      return scalar(value)
    }
    // An empty value has the position after its key's colon; the key is where a reader looks.
    return { key, position: fallback, value: { kind: 'scalar', scalar: null } }
  }
  const tree = document.contents === null ? empty : convert(document.contents, '', start, 0)
  return { tree, problems }
}

/** What a default is written as: the value one would write in the file. */
export type Written =
  | string
  | number
  | boolean
  | readonly Written[]
  | { readonly [key: string]: Written }

/** The tree of a default, as if it stood at `position`. */
export function treeOf(written: Written, key: string, position: Position): Tree {
  if (typeof written !== 'object') {
    return { key, position, value: { kind: 'scalar', scalar: written } }
  }
  if (isWrittenList(written)) {
    const items = written.map((item, index) => treeOf(item, `${key}[${index}]`, position))
    return { key, position, value: { kind: 'list', items } }
  }
  const entries = new Map(
    Object.entries(written).map(([name, value]) => [
      name,
      { position, tree: treeOf(value, key === '' ? name : `${key}.${name}`, position) },
    ]),
  )
  return { key, position, value: { kind: 'map', entries } }
}

const isWrittenList = (written: Written): written is readonly Written[] => Array.isArray(written)
