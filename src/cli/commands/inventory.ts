import {
  InventoryDefinition,
  type Record as InventoryRecord,
  State,
} from '#rpc/gen/assay/server/v1/inventory.ts'
import {
  type Command,
  type CommandContext,
  isOn,
  nowSeconds,
  type Option,
  optional,
  readNamed,
  UsageError,
} from '../command.ts'
import { connectServer, serverOptions } from '../daemons.ts'
import { parseInventory, stateNames, statesByName } from '../inventory-file.ts'
import { count, table, timeLeftText, timeValue } from '../print.ts'
import { pages } from '../wire.ts'

const stateName = (of: State): string =>
  stateNames.find((name) => statesByName.get(name) === of) ?? 'unknown'

const record = (of: InventoryRecord) => ({
  endorsement_key_hash: of.endorsementKeyHash,
  state: stateName(of.state),
  node_name: of.nodeName,
  last_address: of.lastAddress,
  first_seen: timeValue(of.firstSeen),
  last_seen: timeValue(of.lastSeen),
  description: of.description,
})

async function print(context: CommandContext, state: State): Promise<void> {
  using connection = await connectServer(context)
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
  const now = nowSeconds(context)
  const rows = records.map((one) => [
    one.endorsementKeyHash,
    stateName(one.state),
    one.nodeName,
    one.lastAddress,
    timeLeftText(one.lastSeen, now),
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
  if (state === State.PENDING && records.length > 0)
    context.note("'assay inventory approve HASH --node-name NAME' lets one join, 'deny' refuses it")
}

const importCommand: Command = {
  name: 'inventory import',
  summary: 'let TPMs join by a list of their endorsement keys',
  positionals: 'FILE',
  options: [{ name: 'dry-run', summary: 'check and count, change nothing' }, ...serverOptions],
  details: `
FILE is CSV: endorsement_key_hash,node_name[,state]. The hash is what 'assay tpm fingerprint' prints on the node.
'-' reads standard input. All lines are imported or, when one is wrong, none.`,
  async run(context) {
    const [file] = context.positionals
    if (file === undefined)
      throw new UsageError("'assay inventory import' needs a FILE, or '-' for standard input")
    const name = file === '-' ? 'standard input' : file
    const records = parseInventory(await readNamed(context, file), name)
    using connection = await connectServer(context)
    const dryRun = isOn(context, 'dry-run')
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
      using connection = await connectServer(context)
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
  choices: stateNames,
  summary: 'only those in this state: allowed, pending, denied or banned',
}

export const commands: readonly Command[] = [
  importCommand,
  {
    name: 'inventory list',
    summary: 'the TPMs the server knows',
    options: [stateOption, ...serverOptions],
    run: (context) =>
      print(context, statesByName.get(optional(context, 'state') ?? '') ?? State.STATE_UNSPECIFIED),
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
