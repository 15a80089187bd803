import { AssayError } from '#base/errors.ts'
import type { RpcClient } from '#rpc/client.ts'
import { EntryDefinition } from '#rpc/gen/spire/api/server/entry/v1/entry.ts'
import { Entry } from '#rpc/gen/spire/api/types/entry.ts'
import type { Status } from '#rpc/gen/spire/api/types/status.ts'
import {
  all,
  type Command,
  type CommandContext,
  isOn,
  nowSeconds,
  type Option,
  optional,
  readNamed,
  required,
  UsageError,
} from '../command.ts'
import { connectServer, serverOptions } from '../daemons.ts'
import { parseEntryDocument } from '../entry-document.ts'
import { parentNotes, selectorNotes } from '../entry-notes.ts'
import { fieldOptions, fieldsOf, filterOf, filterOptions, maskOf } from '../entry-options.ts'
import { blocks, count, durationText, fields, timeLeftText } from '../print.ts'
import {
  entryRecord,
  errorCodeOf,
  idText,
  pages,
  requireOk,
  wireId,
  wireSelectors,
} from '../wire.ts'

function entryLines(entry: Entry, now: number): readonly string[] {
  const ttl = (of: number): string => (of === 0 ? '' : durationText(of))
  const flags = [
    entry.admin ? 'admin' : '',
    entry.downstream ? 'downstream' : '',
    entry.storeSvid ? 'store-svid' : '',
    entry.additionalAttributes?.disableX509SvidPrefetch ? 'no X.509 prefetch' : '',
    entry.additionalAttributes?.jwtSvidIncludeJti ? 'jti' : '',
  ].filter(Boolean)
  return fields([
    ['Entry', entry.id],
    ['SPIFFE ID', idText(entry.spiffeId)],
    ['Parent', idText(entry.parentId)],
    ...entry.selectors.map(({ type, value }) => ['Selector', `${type}:${value}`] as const),
    ['X.509-SVID life', ttl(entry.x509SvidTtl)],
    ['JWT-SVID life', ttl(entry.jwtSvidTtl)],
    ...entry.federatesWith.map((name) => ['Federates with', name] as const),
    ...entry.dnsNames.map((name) => ['DNS name', name] as const),
    ['Hint', entry.hint],
    ['Flags', flags.join(', ')],
    ['Expires', entry.expiresAt === 0 ? '' : timeLeftText(entry.expiresAt, now)],
    ['Revision', String(entry.revisionNumber)],
  ])
}

function printEntries(context: CommandContext, entries: readonly Entry[]): void {
  const now = nowSeconds(context)
  const lines = context.json
    ? [JSON.stringify(entries.map(entryRecord))]
    : blocks(entries.map((entry) => entryLines(entry, now)))
  for (const line of lines) context.print(line)
}

const create: Command = {
  name: 'entry create',
  summary: 'give workloads that show some selectors an identity',
  options: [
    { name: 'spiffe-id', value: 'ID', summary: 'the identity the workload gets' },
    {
      name: 'parent-id',
      value: 'ID',
      summary: 'the agent (or identity) below which the workload runs',
    },
    {
      name: 'selector',
      value: 'TYPE:VALUE',
      multiple: true,
      summary: 'what the workload must show, all of them',
    },
    {
      name: 'node',
      summary: 'an alias for nodes: the parent is the server, the selectors are those of agents',
    },
    { name: 'entry-id', value: 'TEXT', summary: 'the id of the entry; made up when absent' },
    {
      name: 'data',
      value: 'FILE',
      summary: "entries as JSON, SPIRE's or of 'entry list --json'; '-' reads standard input",
    },
    ...fieldOptions,
    ...serverOptions,
  ],
  details: `
A workload gets the identity when it shows every selector and runs below the parent:

  assay entry create --parent-id spiffe://example.org/spire/agent/tpm/3f9a… \\
    --spiffe-id spiffe://example.org/web --selector unix:user:www-data

Agents learn of it within milliseconds.`,
  async run(context) {
    const data = optional(context, 'data')
    let entries: Entry[]
    if (data !== undefined) {
      const name = data === '-' ? 'standard input' : data
      entries = parseEntryDocument(await readNamed(context, data), name)
    } else {
      const spiffeId = wireId(required(context, 'spiffe-id'))
      const selectors = all(context, 'selector')
      if (selectors.length === 0)
        throw new UsageError("'assay entry create' needs at least one --selector TYPE:VALUE")
      const parentId = isOn(context, 'node')
        ? { trustDomain: spiffeId.trustDomain, path: '/spire/server' }
        : wireId(required(context, 'parent-id'))
      entries = [
        Entry.create({
          id: optional(context, 'entry-id') ?? '',
          spiffeId,
          parentId,
          selectors: wireSelectors(selectors),
          ...fieldsOf(context),
        }),
      ]
    }
    using connection = await connectServer(context)
    const { results } = await connection
      .client(EntryDefinition)
      .batchCreateEntry({ entries }, { signal: context.signal })
    const made = results
      .filter(({ status }) => status?.code === 0)
      .flatMap(({ entry }) => entry ?? [])
    printEntries(context, made)
    requireAll(entries, results)
    const [first] = made
    if (first === undefined || context.json) return
    for (const note of made.flatMap(({ selectors }) => selectorNotes(selectors))) context.note(note)
    const { signal } = context
    const strangers = await parentNotes(made, { connection, signal })
    for (const note of strangers) context.note(note)
    if (isNodeAlias(first)) {
      context.note(`next: assay entry create --parent-id ${idText(first.spiffeId)} …`)
    } else if (strangers.length === 0) {
      context.note(
        `next: the workload gets it by itself; on its node 'assay why --pid PID' shows whether it does`,
      )
    }
  },
}

const isNodeAlias = ({ parentId }: Entry): boolean => parentId?.path === '/spire/server'

/** @throws AssayError that names each entry that was refused, with the code of the first. */
function requireAll(
  entries: readonly Entry[],
  results: readonly { readonly status?: Status | undefined; readonly entry?: Entry | undefined }[],
): void {
  const failed = results.flatMap(({ status, entry }, index) =>
    status === undefined || status.code === 0
      ? []
      : [{ status, id: entry?.id ?? '', spiffeId: idText(entries[index]?.spiffeId) }],
  )
  const [first] = failed
  if (first === undefined) return
  const lines = failed.map(
    ({ status, id, spiffeId }) =>
      `${spiffeId}: ${status.message}${id === '' ? '' : ` (entry ${id})`}`,
  )
  const of =
    entries.length === 1
      ? 'entry for'
      : `${count(failed.length, 'entry', 'entries')} of ${entries.length}:\n `
  throw new AssayError(errorCodeOf(first.status), `cannot create ${of} ${lines.join('\n  ')}`)
}

async function list(context: CommandContext): Promise<void> {
  using connection = await connectServer(context)
  const client = connection.client(EntryDefinition)
  const id = optional(context, 'entry-id')
  const entries: Entry[] = []
  if (id !== undefined) {
    entries.push(await client.getEntry({ id }, { signal: context.signal }))
  } else {
    const filter = filterOf(context)
    for await (const entry of pages(async (pageToken) => {
      const request = { filter, pageSize: 500, pageToken }
      const answer = await client.listEntries(request, { signal: context.signal })
      return { items: answer.entries, nextPageToken: answer.nextPageToken }
    })) {
      entries.push(entry)
    }
  }
  printEntries(context, entries)
  if (id === undefined && !context.json) context.note(count(entries.length, 'entry', 'entries'))
}

/** The two attributes are one field of the mask: the one that was not given is kept here. */
async function attributesOf(context: CommandContext, { client, id }: EntryOf) {
  const { additionalAttributes: present } = await client.getEntry(
    { id },
    { signal: context.signal },
  )
  const { switches } = context
  return {
    disableX509SvidPrefetch:
      switches.get('disable-x509-svid-prefetch') ?? present?.disableX509SvidPrefetch ?? false,
    jwtSvidIncludeJti: switches.get('jwt-svid-include-jti') ?? present?.jwtSvidIncludeJti ?? false,
  }
}

interface EntryOf {
  readonly client: RpcClient<EntryDefinition>
  readonly id: string
}

const update: Command = {
  name: 'entry update',
  summary: 'change an entry; what is not given stays as it is',
  options: [
    { name: 'entry-id', value: 'TEXT', required: true, summary: 'which entry' },
    { name: 'spiffe-id', value: 'ID', summary: 'the identity the workload gets' },
    { name: 'parent-id', value: 'ID', summary: 'the agent (or identity) below which it runs' },
    {
      name: 'selector',
      value: 'TYPE:VALUE',
      multiple: true,
      summary: 'what the workload must show, instead of all that it must show now',
    },
    ...fieldOptions,
    ...serverOptions,
  ],
  details: `
A list that is given replaces the whole list. An empty value clears a field, and a switch is turned off by =false:

  assay entry update --entry-id ID --hint= --dns= --x509-svid-ttl 0 --admin=false

SPIRE's 'entry update' clears what is not given. Workloads that the entry no longer fits lose the identity at once.`,
  async run(context) {
    const id = required(context, 'entry-id')
    const spiffeId = optional(context, 'spiffe-id')
    const parentId = optional(context, 'parent-id')
    const inputMask = maskOf(context)
    if (!Object.values(inputMask).includes(true))
      throw new UsageError("'assay entry update' needs something to change besides --entry-id")
    const entry = Entry.create({
      id,
      ...(spiffeId !== undefined && { spiffeId: wireId(spiffeId) }),
      ...(parentId !== undefined && { parentId: wireId(parentId) }),
      selectors: wireSelectors(all(context, 'selector')),
      ...fieldsOf(context),
    })
    using connection = await connectServer(context)
    const client = connection.client(EntryDefinition)
    if (inputMask.additionalAttributes)
      entry.additionalAttributes = await attributesOf(context, { client, id })
    const { results } = await client.batchUpdateEntry(
      { entries: [entry], inputMask },
      { signal: context.signal },
    )
    requireOk(results[0]?.status, `update entry ${id}`)
    const updated = results[0]?.entry
    if (updated === undefined) return
    if (context.json) context.print(JSON.stringify(entryRecord(updated)))
    else printEntries(context, [updated])
  },
}

const remove: Command = {
  name: 'entry delete',
  summary: 'take an identity away; workloads that have it lose it at once',
  options: [
    { name: 'entry-id', value: 'TEXT', multiple: true, required: true, summary: 'which entry' },
    ...serverOptions,
  ],
  async run(context) {
    const ids = [...all(context, 'entry-id')]
    using connection = await connectServer(context)
    const { results } = await connection
      .client(EntryDefinition)
      .batchDeleteEntry({ ids }, { signal: context.signal })
    const deleted = results.filter(({ status }) => status?.code === 0).map(({ id }) => id)
    if (context.json) context.print(JSON.stringify({ deleted }))
    else for (const id of deleted) context.print(`deleted entry ${id}`)
    for (const { id, status } of results) requireOk(status, `delete entry ${id}`)
  },
}

const countCommand: Command = {
  name: 'entry count',
  summary: 'how many entries there are',
  options: [...filterOptions, ...serverOptions],
  async run(context) {
    using connection = await connectServer(context)
    const request = { filter: filterOf(context) }
    const answer = await connection
      .client(EntryDefinition)
      .countEntries(request, { signal: context.signal })
    context.print(
      context.json
        ? JSON.stringify({ count: answer.count })
        : count(answer.count, 'entry', 'entries'),
    )
  },
}

const showOptions: readonly Option[] = [
  { name: 'entry-id', value: 'TEXT', summary: 'only this entry' },
  ...filterOptions,
  ...serverOptions,
]

export const commands: readonly Command[] = [
  create,
  {
    name: 'entry show',
    summary: 'one entry, or those that match',
    options: showOptions,
    run: list,
  },
  {
    name: 'entry list',
    summary: 'every entry, or those that match',
    options: showOptions,
    run: list,
  },
  update,
  remove,
  countCommand,
]
