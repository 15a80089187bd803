import { AssayError } from '#base/errors.ts'
import type { Connection } from '#rpc/client.ts'
import { type Key, KeysDefinition } from '#rpc/gen/assay/server/v1/keys.ts'
import {
  type AuthorityState,
  LocalAuthorityDefinition,
} from '#rpc/gen/spire/api/server/localauthority/v1/localauthority.ts'
import {
  type Command,
  type CommandContext,
  isOn,
  nowSeconds,
  type Option,
  optional,
  UsageError,
} from '../command.ts'
import { connectServer, serverOptions } from '../daemons.ts'
import { count, table, timeLeftText, timeValue } from '../print.ts'

type Kind = 'x509' | 'jwt'
type States = Readonly<Record<'active' | 'prepared' | 'old', AuthorityState | undefined>>

const record = (state: AuthorityState) => ({
  authority_id: state.authorityId,
  expires_at: timeValue(state.expiresAt),
  ...(state.upstreamAuthoritySubjectKeyId !== '' && {
    upstream_authority_subject_key_id: state.upstreamAuthoritySubjectKeyId,
  }),
})

function kindOf(context: CommandContext, command: string): Kind {
  const [text] = context.positionals
  if (text === 'x509' || text === 'jwt') return text
  const given = text === undefined ? 'needs' : `'${text}' is none: it takes`
  throw new UsageError(`'assay authority ${command}' ${given} a KIND: x509 or jwt`)
}

async function statesOf(
  context: CommandContext,
  connection: Connection,
  kind: Kind,
): Promise<States> {
  const client = connection.client(LocalAuthorityDefinition)
  const options = { signal: context.signal }
  const { active, prepared, old } =
    kind === 'x509'
      ? await client.getX509AuthorityState({}, options)
      : await client.getJWTAuthorityState({}, options)
  return { active, prepared, old }
}

/** Every authority of a kind: SPIRE's service names the one old authority that was replaced last. */
function allOf(
  states: States,
  { kind, keys }: { readonly kind: Kind; readonly keys: readonly Key[] },
): readonly { name: string; state: AuthorityState; tainted: boolean }[] {
  const named = (['prepared', 'active', 'old'] as const).flatMap((name) => {
    const state = states[name]
    return state === undefined ? [] : [{ name, state }]
  })
  const ids = new Set(named.map(({ state }) => state.authorityId))
  const more = keys
    .filter(({ purpose, state }) => purpose === purposes[kind] && state === 'old')
    .filter(({ authorityId }) => !ids.has(authorityId))
    .map(({ authorityId, expiresAt }) => ({
      name: 'old',
      state: { authorityId, expiresAt, upstreamAuthoritySubjectKeyId: '' },
    }))
  const tainted = new Set(keys.filter((key) => key.tainted).map(({ authorityId }) => authorityId))
  return [...named, ...more.reverse()].map((one) => ({
    ...one,
    tainted: tainted.has(one.state.authorityId),
  }))
}

const purposes = { x509: 'x509-ca', jwt: 'jwt' } as const

/** The authority that an option names, or else the one in the state that the command is about. */
async function chosen(
  context: CommandContext,
  connection: Connection,
  { kind, state }: { readonly kind: Kind; readonly state: 'prepared' | 'old' },
): Promise<string> {
  const given = optional(context, 'authority-id')
  if (given !== undefined) return given
  const found = (await statesOf(context, connection, kind))[state]
  if (found !== undefined) return found.authorityId
  throw new AssayError(
    'failed-precondition',
    state === 'prepared'
      ? `no ${kind} authority is prepared; 'assay authority prepare ${kind}' makes one`
      : `no ${kind} authority is old; one becomes old when another is activated in its place`,
    { reason: 'authority-state' },
  )
}

const authorityOption: Option = {
  name: 'authority-id',
  value: 'ID',
  summary: 'which authority; the prepared one, or the one replaced last, when absent',
}

const upstreamOption: Option = {
  name: 'subject-key-id',
  value: 'ID',
  summary: 'an authority of the upstream instead, by its subject key identifier',
}

function printDone(context: CommandContext, done: string, state: AuthorityState): void {
  if (context.json) context.print(JSON.stringify(record(state)))
  else context.print(`${done} ${state.authorityId}`)
}

/** @throws AssayError `internal` when the server's answer lacks what it is about. */
function answered(state: AuthorityState | undefined): AuthorityState {
  if (state !== undefined) return state
  throw new AssayError('internal', 'the server did not say which authority it was')
}

const show: Command = {
  name: 'authority show',
  summary: 'which authorities are prepared, active and old',
  positionals: 'KIND',
  options: serverOptions,
  details: `
KIND is x509 or jwt; both when absent. An X.509 authority is named by its subject key identifier, a JWT authority by its
key ID. 'assay hsm status' tells more: their keys, who depends on them, and what happens next.`,
  async run(context) {
    const kinds =
      context.positionals.length === 0
        ? (['x509', 'jwt'] as const)
        : ([kindOf(context, 'show')] as const)
    using connection = await connectServer(context)
    const rows: string[][] = []
    const records: object[] = []
    const { keys } = await connection
      .client(KeysDefinition)
      .getStatus({}, { signal: context.signal })
    for (const kind of kinds) {
      for (const { name, state, tainted } of allOf(await statesOf(context, connection, kind), {
        kind,
        keys,
      })) {
        const { authorityId, expiresAt, upstreamAuthoritySubjectKeyId: upstream } = state
        records.push({ kind, state: name, tainted, ...record(state) })
        const shown = tainted ? `${name}, tainted` : name
        rows.push([
          kind,
          shown,
          authorityId,
          timeLeftText(expiresAt, nowSeconds(context)),
          upstream,
        ])
      }
    }
    if (context.json) return context.print(JSON.stringify(records))
    for (const line of table(['kind', 'state', 'authority', 'expires', 'signed by'], rows)) {
      context.print(line)
    }
  },
}

const prepare: Command = {
  name: 'authority prepare',
  summary: 'make the next authority and publish it in the bundle',
  positionals: 'KIND',
  options: serverOptions,
  details: `
KIND is x509 or jwt. It signs nothing before it is activated. One that was prepared before is given up.`,
  async run(context) {
    const kind = kindOf(context, 'prepare')
    using connection = await connectServer(context)
    const client = connection.client(LocalAuthorityDefinition)
    const options = { signal: context.signal }
    const { preparedAuthority } =
      kind === 'x509'
        ? await client.prepareX509Authority({}, options)
        : await client.prepareJWTAuthority({}, options)
    printDone(context, 'prepared', answered(preparedAuthority))
  },
}

const activate: Command = {
  name: 'authority activate',
  summary: 'let the prepared authority sign from now on',
  positionals: 'KIND',
  options: [authorityOption, ...serverOptions],
  details: `
KIND is x509 or jwt. Whoever does not have the newest bundle yet will refuse what it signs: 'assay hsm status' names the
nodes, and 'assay hsm rotate' waits for them.`,
  async run(context) {
    const kind = kindOf(context, 'activate')
    using connection = await connectServer(context)
    const client = connection.client(LocalAuthorityDefinition)
    const request = { authorityId: await chosen(context, connection, { kind, state: 'prepared' }) }
    const options = { signal: context.signal }
    const { activatedAuthority } =
      kind === 'x509'
        ? await client.activateX509Authority(request, options)
        : await client.activateJWTAuthority(request, options)
    printDone(context, 'activated', answered(activatedAuthority))
  },
}

const taint: Command = {
  name: 'authority taint',
  summary: 'have everything replaced that an old authority signed',
  positionals: 'KIND',
  options: [authorityOption, upstreamOption, ...serverOptions],
  details: `
KIND is x509 or jwt. The authority stays in the bundle, so that nothing breaks meanwhile; agents and the server get new
SVIDs at once, spread over the server's replacement_spread.`,
  async run(context) {
    const kind = kindOf(context, 'taint')
    using connection = await connectServer(context)
    const client = connection.client(LocalAuthorityDefinition)
    const options = { signal: context.signal }
    const subjectKeyId = upstreamKeyId(context, kind)
    if (subjectKeyId !== undefined) {
      await client.taintX509UpstreamAuthority({ subjectKeyId }, options)
      return printUpstream(context, 'tainted', subjectKeyId)
    }
    const request = { authorityId: await chosen(context, connection, { kind, state: 'old' }) }
    const { taintedAuthority } =
      kind === 'x509'
        ? await client.taintX509Authority(request, options)
        : await client.taintJWTAuthority(request, options)
    printDone(context, 'tainted', answered(taintedAuthority))
  },
}

const revoke: Command = {
  name: 'authority revoke',
  summary: 'take a tainted authority out of the bundle and destroy its key',
  positionals: 'KIND',
  options: [
    { name: 'force', summary: 'although something that it signed is still in use, and breaks' },
    authorityOption,
    upstreamOption,
    ...serverOptions,
  ],
  details: `
KIND is x509 or jwt. It cannot be undone. While nodes hold SVIDs of it, or tokens of it are valid, --force is needed;
'assay hsm status' shows when nobody depends on it any more.`,
  async run(context) {
    const kind = kindOf(context, 'revoke')
    using connection = await connectServer(context)
    const client = connection.client(LocalAuthorityDefinition)
    const options = { signal: context.signal }
    const subjectKeyId = upstreamKeyId(context, kind)
    if (subjectKeyId !== undefined) {
      await client.revokeX509UpstreamAuthority({ subjectKeyId }, options)
      return printUpstream(context, 'revoked', subjectKeyId)
    }
    const authorityId = await chosen(context, connection, { kind, state: 'old' })
    if (!isOn(context, 'force')) await requireUnused(context, connection, authorityId)
    const { revokedAuthority } =
      kind === 'x509'
        ? await client.revokeX509Authority({ authorityId }, options)
        : await client.revokeJWTAuthority({ authorityId }, options)
    printDone(context, 'revoked', answered(revokedAuthority))
  },
}

function upstreamKeyId(context: CommandContext, kind: Kind): string | undefined {
  const given = optional(context, 'subject-key-id')
  if (given !== undefined && kind !== 'x509') {
    throw new UsageError('option --subject-key-id names an X.509 authority: the KIND must be x509')
  }
  return given
}

function printUpstream(context: CommandContext, done: string, subjectKeyId: string): void {
  if (context.json)
    context.print(JSON.stringify({ upstream_authority_subject_key_id: subjectKeyId }))
  else context.print(`${done} ${subjectKeyId} of the upstream`)
}

/** @throws AssayError `failed-precondition` that says who depends on the authority. */
async function requireUnused(
  context: CommandContext,
  connection: Connection,
  authorityId: string,
): Promise<void> {
  const { keys } = await connection.client(KeysDefinition).getStatus({}, { signal: context.signal })
  const key = keys.find((one) => one.authorityId === authorityId)
  const now = nowSeconds(context)
  if (key === undefined || key.signedUntil <= now) return
  const isMinted = key.mintedUntil > now
  if (key.purpose === 'x509-ca' && key.nodes === 0 && !isMinted) return
  const what =
    key.purpose === 'jwt'
      ? 'tokens that it signed are valid'
      : key.nodes === 0
        ? 'an SVID of it that was minted by hand, or the CA of a downstream server, is valid'
        : `${count(key.svids, 'SVID')} of it on ${count(key.nodes, 'node')} are valid`
  throw new AssayError(
    'failed-precondition',
    `cannot revoke ${authorityId}: ${what} until ${timeLeftText(key.signedUntil, now)}\ntainting has them replaced, 'assay hsm status' shows when nobody depends on it; --force revokes now, and breaks them`,
    { reason: 'authority-in-use' },
  )
}

export const commands: readonly Command[] = [show, prepare, activate, taint, revoke]
