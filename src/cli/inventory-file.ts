import { AssayError } from '#base/errors.ts'
import { Record as InventoryRecord, State } from '#rpc/gen/assay/server/v1/inventory.ts'

/** What an operator may decide about a TPM, and how the server names it. */
export const statesByName: ReadonlyMap<string, State> = new Map([
  ['allowed', State.ALLOWED],
  ['pending', State.PENDING],
  ['denied', State.DENIED],
  ['banned', State.BANNED],
])

export const stateNames: readonly string[] = [...statesByName.keys()]

const heading = 'endorsement_key_hash'
const maxProblemsShown = 20

/**
 * Reads lines of `endorsement_key_hash,node_name[,state]` (RFC 4180, without line breaks in fields), with or
 * without that heading; empty lines and lines that begin with `#` are skipped.
 *
 * @param file for messages.
 * @throws AssayError `invalid-argument` that names each line that is wrong; nothing is imported then.
 */
export function parseInventory(text: string, file: string): InventoryRecord[] {
  const problems: string[] = []
  const records: InventoryRecord[] = []
  const seen = new Map<string, number>()
  // Spreadsheets put a byte order mark first.
  for (const [index, line] of text
    .replace(/^\ufeff/, '')
    .split(/\r?\n/)
    .entries()) {
    if (line.trim() === '' || line.startsWith('#')) continue
    const fields = csvFields(line)
    if (fields?.[0] === heading) continue
    const problem = problemOf(fields, seen)
    if (problem !== undefined) {
      problems.push(`${file}:${index + 1}: ${problem}`)
      continue
    }
    const [hash = '', nodeName = '', state = ''] = fields ?? []
    seen.set(hash.toLowerCase(), index + 1)
    records.push(
      InventoryRecord.create({
        endorsementKeyHash: hash.toLowerCase(),
        nodeName,
        state: statesByName.get(state) ?? State.ALLOWED,
      }),
    )
  }
  if (problems.length > 0) throw refused(problems)
  return records
}

function problemOf(
  fields: readonly string[] | undefined,
  seen: ReadonlyMap<string, number>,
): string | undefined {
  if (fields === undefined) return 'its quotes do not match'
  if (fields.length > 3) return `it has ${fields.length} fields; write hash,node_name,state`
  const [hash = '', , state = ''] = fields
  if (!/^[0-9a-f]{64}$/i.test(hash)) {
    return `'${hash.slice(0, 80)}' is no endorsement key hash; it has 64 hex digits ('assay tpm fingerprint' prints it)`
  }
  const before = seen.get(hash.toLowerCase())
  if (before !== undefined) return `${hash} stands in line ${before} already`
  if (state === '' || statesByName.has(state)) return undefined
  return `'${state.slice(0, 80)}' is no state; leave it out or write ${stateNames.join(', ')}`
}

function refused(problems: readonly string[]): AssayError {
  const shown = problems.slice(0, maxProblemsShown)
  const more = problems.length - shown.length
  const lines = more > 0 ? [...shown, `and ${more} more`] : shown
  return new AssayError('invalid-argument', `nothing was imported:\n${lines.join('\n')}`)
}

/** Fields of one line: quotes may surround a field and are doubled inside it. Undefined when they do not match. */
function csvFields(line: string): readonly string[] | undefined {
  const fields: string[] = []
  const field = /(?:\s*"((?:[^"]|"")*)"\s*|([^",]*))(,|$)/y
  for (;;) {
    const match = field.exec(line)
    if (match === null) return undefined
    const [, quoted, plain = '', separator] = match
    fields.push((quoted?.replaceAll('""', '"') ?? plain).trim())
    if (separator === '') return fields
  }
}
