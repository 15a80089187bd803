import { readFile } from 'node:fs/promises'
import { AssayError } from '#base/errors.ts'
import {
  InventoryDefinition,
  Record as InventoryRecord,
  State,
} from '#rpc/gen/assay/server/v1/inventory.ts'
import { type Command, type CommandContext, type Option, optional, UsageError } from '../command.ts'
import { connectServer, serverOptions } from '../daemons.ts'
import { count, table, timeText } from '../print.ts'
import { pages } from '../wire.ts'

const stateNames = new Map<State, string>([
  [State.ALLOWED, 'allowed'],
  [State.PENDING, 'pending'],
  [State.DENIED, 'denied'],
  [State.BANNED, 'banned'],
])

function stateNamed(text: string): State {
  for (const [state, name] of stateNames) if (name === text) return state
  throw new UsageError(`'${text}' is no state: it is one of ${[...stateNames.values()].join(', ')}`)
}

const record = (of: InventoryRecord) => ({
  endorsement_key_hash: of.endorsementKeyHash,
  state: stateNames.get(of.state) ?? 'unknown',
  node_name: of.nodeName,
  last_address: of.lastAddress,
  first_seen: timeText(of.firstSeen),
  last_seen: timeText(of.lastSeen),
  description: of.description,
})

async function print(context: CommandContext, state: State): Promise<void> {
  using connection = connectServer(context)
  const client = connection.client(InventoryDefinition)
  const records: InventoryRecord[] = []
  for await (const one of pages(async (pageToken) => {
    const request = { state, pageSize: 500, pageToken }
    const answer = await client.list(request, { signal: context.signal })
    return { items: answer.records, nextPageToken: answer.nextPageToken }
  })) {
    records.push(one)
  }
  if (context.json) return context.print(JSON.stringify(records.map(record)))
  const rows = records.map((one) => [
    one.endorsementKeyHash,
    stateNames.get(one.state) ?? '',
    one.nodeName,
    one.lastAddress,
    timeText(one.lastSeen),
    one.description,
  ])
  if (rows.length > 0) {
    for (const line of table(
      ['endorsement key', 'state', 'node', 'address', 'last seen', 'what it says it is'],
      rows,
    )) {
      context.print(line)
    }
  }
  context.note(count(records.length, 'TPM'))
}

/** Fields of one CSV line (RFC 4180): quotes may surround a field and are doubled inside it. */
function csvFields(line: string): readonly string[] {
  return [...line.matchAll(/(?:^|,)(?:"((?:[^"]|"")*)"|([^,]*))/g)].map(([, quoted, plain]) =>
    (quoted?.replaceAll('""', '"') ?? plain ?? '').trim(),
  )
}

/**
 * Reads `endorsement_key_hash,node_name[,state]`, with or without that heading; empty lines and lines that begin
 * with `#` are skipped.
 *
 * @throws AssayError that names each line that is wrong; nothing is imported then.
 */
export function parseInventory(text: string, file: string): InventoryRecord[] {
  const problems: string[] = []
  const records: InventoryRecord[] = []
  const seen = new Map<string, number>()
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    const [hash = '', nodeName = '', state = ''] = csvFields(line)
    if (line.trim() === '' || line.startsWith('#') || hash === 'endorsement_key_hash') continue
    const at = `${file}:${index + 1}`
    const lower = hash.toLowerCase()
    if (!/^[0-9a-f]{64}$/.test(lower)) {
      problems.push(
        `${at}: '${hash.slice(0, 80)}' is no endorsement key hash; it has 64 hex digits ('assay tpm fingerprint' prints it)`,
      )
    } else if (seen.has(lower)) {
      problems.push(`${at}: ${lower} stands in line ${seen.get(lower)} already`)
    } else if (state !== '' && ![...stateNames.values()].includes(state)) {
      problems.push(
        `${at}: '${state}' is no state; leave it out or write ${[...stateNames.values()].join(', ')}`,
      )
    }
    seen.set(lower, index + 1)
    records.push(
      InventoryRecord.create({
        endorsementKeyHash: lower,
        nodeName,
        state: state === '' || problems.length > 0 ? State.ALLOWED : stateNamed(state),
      }),
    )
  }
  if (problems.length > 0) {
    const shown = problems.slice(0, 20)
    const more =
      problems.length > shown.length ? [`and ${problems.length - shown.length} more`] : []
    throw new AssayError(
      'invalid-argument',
      `nothing was imported:\n${[...shown, ...more].join('\n')}`,
    )
  }
  return records
}

const importCommand: Command = {
  name: 'inventory import',
  summary: 'let TPMs join by a list of their endorsement keys',
  positionals: 'FILE',
  options: [...serverOptions, { name: 'dry-run', summary: 'check and count, change nothing' }],
  details: `
FILE is CSV: endorsement_key_hash,node_name[,state]. The hash is what 'assay tpm fingerprint' prints on the node.
'-' reads standard input. All lines are imported or, when one is wrong, none.`,
  async run(context) {
    const [file] = context.positionals
    if (file === undefined)
      throw new UsageError("'assay inventory import' needs a FILE, or '-' for standard input")
    const text = file === '-' ? await context.readInput() : await readFile(file, 'utf8')
    const records = parseInventory(text, file)
    using connection = connectServer(context)
    const dryRun = context.switches.has('dry-run')
    const answer = await connection
      .client(InventoryDefinition)
      .import({ records, dryRun }, { signal: context.signal })
    if (context.json) return context.print(JSON.stringify({ ...answer, dry_run: dryRun }))
    context.print(
      `${dryRun ? 'would import' : 'imported'} ${count(records.length, 'TPM')}: ${answer.created} new, ${answer.updated} changed, ${answer.unchanged} as before`,
    )
  },
}

function setState(verb: string, summary: string, state: State, done: string): Command {
  return {
    name: `inventory ${verb}`,
    summary,
    positionals: 'HASH',
    options: [
      ...serverOptions,
      { name: 'node-name', value: 'NAME', summary: 'what to call the node' },
    ],
    details:
      'HASH is the endorsement key hash, or its first 8 characters or more when they are unambiguous.',
    async run(context) {
      const [hash] = context.positionals
      if (hash === undefined)
        throw new UsageError(`'assay inventory ${verb}' needs a HASH; see 'assay inventory list'`)
      using connection = connectServer(context)
      const request = {
        endorsementKeyHash: hash.toLowerCase(),
        state,
        nodeName: optional(context, 'node-name') ?? '',
      }
      const answer = await connection
        .client(InventoryDefinition)
        .setState(request, { signal: context.signal })
      if (context.json) return context.print(JSON.stringify(record(answer)))
      context.print(
        `${done} ${answer.endorsementKeyHash}${answer.nodeName === '' ? '' : ` (${answer.nodeName})`}`,
      )
    },
  }
}

const stateOption: Option = {
  name: 'state',
  value: 'STATE',
  summary: 'only allowed, pending, denied or banned ones',
}

export const inventoryCommands: readonly Command[] = [
  importCommand,
  {
    name: 'inventory list',
    summary: 'the TPMs the server knows',
    options: [...serverOptions, stateOption],
    run: (context) => {
      const state = optional(context, 'state')
      return print(context, state === undefined ? State.STATE_UNSPECIFIED : stateNamed(state))
    },
  },
  {
    name: 'inventory pending',
    summary: 'TPMs that asked to join and wait for a decision',
    options: serverOptions,
    run: (context) => print(context, State.PENDING),
  },
  setState('approve', 'let a TPM join', State.ALLOWED, 'approved'),
  setState('deny', 'refuse a TPM', State.DENIED, 'denied'),
  setState('ban', 'refuse a TPM that had been allowed, and stop its agent', State.BANNED, 'banned'),
]
