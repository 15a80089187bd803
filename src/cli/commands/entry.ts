import { readFile } from 'node:fs/promises'
import { AssayError } from '#base/errors.ts'
import { EntryDefinition } from '#rpc/gen/spire/api/server/entry/v1/entry.ts'
import { Entry } from '#rpc/gen/spire/api/types/entry.ts'
import {
  all,
  type Command,
  type CommandContext,
  choice,
  integer,
  type Option,
  optional,
  required,
  seconds,
  UsageError,
} from '../command.ts'
import { connectServer, serverOptions } from '../daemons.ts'
import { count, durationText, fields, timeText } from '../print.ts'
import { entryRecord, idText, pages, requireOk, wireId, wireSelectors } from '../wire.ts'

const fieldOptions: readonly Option[] = [
  {
    name: 'x509-svid-ttl',
    value: 'DURATION',
    summary: "life of its X.509-SVIDs; the server's default when absent",
  },
  {
    name: 'jwt-svid-ttl',
    value: 'DURATION',
    summary: "life of its JWT-SVIDs; the server's default when absent",
  },
  {
    name: 'federates-with',
    value: 'TRUST-DOMAIN',
    multiple: true,
    summary: 'also gets the bundle of this trust domain',
  },
  {
    name: 'dns',
    value: 'NAME',
    multiple: true,
    summary: 'DNS name in its X.509-SVIDs; the first is the common name too',
  },
  { name: 'hint', value: 'TEXT', summary: 'tells several identities of one workload apart' },
  {
    name: 'entry-expiry',
    value: 'UNIX-TIME',
    summary: 'when the entry is removed; never when absent',
  },
  { name: 'admin', summary: 'may call the administration API over the network' },
  { name: 'downstream', summary: 'is a server of the same trust domain below this one' },
  { name: 'store-svid', summary: 'the agent stores its SVID in a secret store' },
  { name: 'disable-x509-svid-prefetch', summary: 'the agent signs only when the workload asks' },
  { name: 'jwt-svid-include-jti', summary: 'each JWT-SVID is unique and never cached' },
]

const filterOptions: readonly Option[] = [
  { name: 'spiffe-id', value: 'ID', summary: 'only entries for this identity' },
  { name: 'parent-id', value: 'ID', summary: 'only entries below this agent or identity' },
  {
    name: 'selector',
    value: 'TYPE:VALUE',
    multiple: true,
    summary: 'only entries with these selectors',
  },
  {
    name: 'match-selectors-on',
    value: 'HOW',
    summary: 'superset (has all of them, default), exact, subset (has no others), any (has one)',
  },
  {
    name: 'federates-with',
    value: 'TRUST-DOMAIN',
    multiple: true,
    summary: 'only entries that federate with it',
  },
  { name: 'hint', value: 'TEXT', summary: 'only entries with this hint' },
  { name: 'downstream', summary: 'only downstream entries' },
]

const matches = { exact: 0, subset: 1, superset: 2, any: 3 } as const

function filterOf(context: CommandContext) {
  const spiffeId = optional(context, 'spiffe-id')
  const parentId = optional(context, 'parent-id')
  const selectors = all(context, 'selector')
  const trustDomains = all(context, 'federates-with')
  const match =
    matches[choice(context, 'match-selectors-on', ['superset', 'exact', 'subset', 'any'])]
  return {
    bySpiffeId: spiffeId === undefined ? undefined : wireId(spiffeId),
    byParentId: parentId === undefined ? undefined : wireId(parentId),
    bySelectors:
      selectors.length === 0 ? undefined : { selectors: wireSelectors(selectors), match },
    byFederatesWith:
      trustDomains.length === 0
        ? undefined
        : { trustDomains: [...trustDomains], match: matches.superset },
    byHint: optional(context, 'hint'),
    byDownstream: context.switches.has('downstream') ? true : undefined,
  }
}

function fieldsOf(context: CommandContext) {
  return {
    x509SvidTtl: seconds(context, 'x509-svid-ttl', 0),
    jwtSvidTtl: seconds(context, 'jwt-svid-ttl', 0),
    federatesWith: [...all(context, 'federates-with')],
    dnsNames: [...all(context, 'dns')],
    hint: optional(context, 'hint') ?? '',
    expiresAt: integer(context, 'entry-expiry', { otherwise: 0 }),
    admin: context.switches.has('admin'),
    downstream: context.switches.has('downstream'),
    storeSvid: context.switches.has('store-svid'),
    additionalAttributes: {
      disableX509SvidPrefetch: context.switches.has('disable-x509-svid-prefetch'),
      jwtSvidIncludeJti: context.switches.has('jwt-svid-include-jti'),
    },
  }
}

function printEntry(context: CommandContext, entry: Entry): void {
  const ttl = (of: number): string => (of === 0 ? '' : durationText(of))
  const flags = [
    entry.admin ? 'admin' : '',
    entry.downstream ? 'downstream' : '',
    entry.storeSvid ? 'store-svid' : '',
    entry.additionalAttributes?.disableX509SvidPrefetch ? 'no X.509 prefetch' : '',
    entry.additionalAttributes?.jwtSvidIncludeJti ? 'jti' : '',
  ].filter(Boolean)
  for (const line of fields([
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
    ['Expires', timeText(entry.expiresAt)],
    ['Revision', String(entry.revisionNumber)],
  ])) {
    context.print(line)
  }
  context.print('')
}

interface EntryDocument {
  readonly entry_id?: string
  readonly spiffe_id: string
  readonly parent_id: string
  readonly selectors: readonly (string | { readonly type: string; readonly value: string })[]
  readonly x509_svid_ttl?: number
  readonly jwt_svid_ttl?: number
  readonly federates_with?: readonly string[]
  readonly dns_names?: readonly string[]
  readonly hint?: string
  readonly expires_at?: number
  readonly admin?: boolean
  readonly downstream?: boolean
  readonly store_svid?: boolean
}

/** SPIRE's form: `{"entries": [{"spiffe_id": …, "parent_id": …, "selectors": [{"type", "value"}]}]}`. */
function entriesFromDocument(text: string, name: string): Entry[] {
  let document: { readonly entries?: readonly EntryDocument[] }
  try {
    document = JSON.parse(text)
  } catch (cause) {
    throw new AssayError('invalid-argument', `cannot read entries from ${name}: it is not JSON`, {
      cause,
    })
  }
  if (!Array.isArray(document.entries)) {
    throw new AssayError(
      'invalid-argument',
      `cannot read entries from ${name}: it has no list "entries"`,
    )
  }
  return document.entries.map((entry: EntryDocument, index) => {
    try {
      return Entry.create({
        id: entry.entry_id ?? '',
        spiffeId: wireId(entry.spiffe_id),
        parentId: wireId(entry.parent_id),
        selectors: entry.selectors.flatMap((one) =>
          typeof one === 'string' ? wireSelectors([one]) : [one],
        ),
        x509SvidTtl: entry.x509_svid_ttl ?? 0,
        jwtSvidTtl: entry.jwt_svid_ttl ?? 0,
        federatesWith: [...(entry.federates_with ?? [])],
        dnsNames: [...(entry.dns_names ?? [])],
        hint: entry.hint ?? '',
        expiresAt: entry.expires_at ?? 0,
        admin: entry.admin ?? false,
        downstream: entry.downstream ?? false,
        storeSvid: entry.store_svid ?? false,
      })
    } catch (cause) {
      const why =
        cause instanceof SyntaxError ? cause.message : 'it needs spiffe_id, parent_id and selectors'
      throw new AssayError(
        'invalid-argument',
        `cannot read entry ${index + 1} of ${name}: ${why}`,
        { cause },
      )
    }
  })
}

const create: Command = {
  name: 'entry create',
  summary: 'give workloads that show some selectors an identity',
  options: [
    ...serverOptions,
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
      summary: 'entries as JSON, {"entries": […]}; \'-\' reads standard input',
    },
    ...fieldOptions,
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
      const text = data === '-' ? await context.readInput() : await readFile(data, 'utf8')
      entries = entriesFromDocument(text, data === '-' ? 'standard input' : data)
    } else {
      const spiffeId = wireId(required(context, 'spiffe-id'))
      const selectors = all(context, 'selector')
      if (selectors.length === 0)
        throw new UsageError("'assay entry create' needs at least one --selector TYPE:VALUE")
      const parentId = context.switches.has('node')
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
    using connection = connectServer(context)
    const { results } = await connection
      .client(EntryDefinition)
      .batchCreateEntry({ entries }, { signal: context.signal })
    const made = results
      .filter(({ status }) => status?.code === 0)
      .flatMap(({ entry }) => entry ?? [])
    if (context.json) context.print(JSON.stringify(made.map(entryRecord)))
    else for (const entry of made) printEntry(context, entry)
    for (const [index, { status, entry }] of results.entries()) {
      const id = entry?.id ? ` (entry ${entry.id})` : ''
      if (status?.code !== 0)
        context.note(`assay: ${idText(entries[index]?.spiffeId)}: ${status?.message}${id}`)
    }
    const failed = results.find(({ status }) => status?.code !== 0)
    if (failed !== undefined) {
      requireOk(
        failed.status,
        `create ${count(results.length - made.length, 'entry', 'entries')} of ${results.length}`,
      )
    }
  },
}

async function list(context: CommandContext): Promise<void> {
  using connection = connectServer(context)
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
  if (context.json) return context.print(JSON.stringify(entries.map(entryRecord)))
  for (const entry of entries) printEntry(context, entry)
  context.note(count(entries.length, 'entry', 'entries'))
}

const update: Command = {
  name: 'entry update',
  summary: 'replace an entry; what is not given is cleared',
  options: [
    ...serverOptions,
    { name: 'entry-id', value: 'TEXT', required: true, summary: 'which entry' },
    { name: 'spiffe-id', value: 'ID', required: true, summary: 'the identity the workload gets' },
    {
      name: 'parent-id',
      value: 'ID',
      required: true,
      summary: 'the agent (or identity) below which it runs',
    },
    {
      name: 'selector',
      value: 'TYPE:VALUE',
      multiple: true,
      required: true,
      summary: 'what the workload must show',
    },
    ...fieldOptions,
  ],
  async run(context) {
    const entry = Entry.create({
      id: required(context, 'entry-id'),
      spiffeId: wireId(required(context, 'spiffe-id')),
      parentId: wireId(required(context, 'parent-id')),
      selectors: wireSelectors(all(context, 'selector')),
      ...fieldsOf(context),
    })
    using connection = connectServer(context)
    const { results } = await connection
      .client(EntryDefinition)
      .batchUpdateEntry({ entries: [entry] }, { signal: context.signal })
    requireOk(results[0]?.status, `update entry ${entry.id}`)
    const updated = results[0]?.entry
    if (updated === undefined) return
    if (context.json) context.print(JSON.stringify(entryRecord(updated)))
    else printEntry(context, updated)
  },
}

const remove: Command = {
  name: 'entry delete',
  summary: 'take an identity away; workloads that have it lose it at once',
  options: [
    ...serverOptions,
    { name: 'entry-id', value: 'TEXT', multiple: true, required: true, summary: 'which entry' },
  ],
  async run(context) {
    const ids = [...all(context, 'entry-id')]
    using connection = connectServer(context)
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
  options: [...serverOptions, ...filterOptions],
  async run(context) {
    using connection = connectServer(context)
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
  ...serverOptions,
  { name: 'entry-id', value: 'TEXT', summary: 'only this entry' },
  ...filterOptions,
]

export const entryCommands: readonly Command[] = [
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
