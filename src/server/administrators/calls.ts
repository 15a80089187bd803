import { nearest } from '#config/nearest.ts'

/** What calls are about, each about one thing. */
export const callSets = [
  'entries',
  'nodes',
  'inventory',
  'bundles',
  'svids',
  'authorities',
  'server',
  'backup',
] as const

export type CallSet = (typeof callSets)[number]

/** What has to be known of a method to say who may call it. */
export interface CallTraits {
  /**
   * The set it is in. `administrator`: every administrator may call it, and what it does asks further. `everybody`:
   * whoever may open the socket.
   */
  readonly set: CallSet | 'administrator' | 'everybody'
  /** It changes nothing, and is in `read` too. */
  readonly reads: boolean
  /** Its handler keeps to an administrator's SPIFFE ID prefixes. Others are refused to who has some. */
  readonly narrows: boolean
}

type Traits = 'reads' | 'narrows'

const rows = (
  service: string,
  set: CallTraits['set'],
  { traits = [], methods }: { readonly traits?: readonly Traits[]; readonly methods: string },
): readonly (readonly [string, CallTraits])[] =>
  methods
    .split(' ')
    .map((method) => [
      `/${service}/${method}`,
      { set, reads: traits.includes('reads'), narrows: traits.includes('narrows') },
    ])

const agent = 'spire.api.server.agent.v1.Agent'
const entry = 'spire.api.server.entry.v1.Entry'
const bundle = 'spire.api.server.bundle.v1.Bundle'
const svid = 'spire.api.server.svid.v1.SVID'
const trustDomain = 'spire.api.server.trustdomain.v1.TrustDomain'
const localAuthority = 'spire.api.server.localauthority.v1.LocalAuthority'

/** Every method that administrators call, by full name. One that is not here is only for those with all rights. */
export const calls: ReadonlyMap<string, CallTraits> = new Map([
  ...rows(entry, 'entries', {
    traits: ['reads', 'narrows'],
    methods: 'CountEntries ListEntries GetEntry',
  }),
  ...rows(entry, 'entries', {
    traits: ['narrows'],
    methods: 'BatchCreateEntry BatchUpdateEntry BatchDeleteEntry',
  }),
  ...rows(agent, 'nodes', {
    traits: ['reads', 'narrows'],
    methods: 'CountAgents ListAgents GetAgent',
  }),
  ...rows(agent, 'nodes', { traits: ['narrows'], methods: 'DeleteAgent BanAgent CreateJoinToken' }),
  ...rows('assay.server.v1.Refusals', 'nodes', { traits: ['reads'], methods: 'List' }),
  ...rows('assay.server.v1.Activity', 'nodes', {
    traits: ['reads', 'narrows'],
    methods: 'WatchNodes',
  }),
  ...rows('assay.server.v1.Activity', 'server', { traits: ['reads'], methods: 'GetIssued' }),
  ...rows('assay.server.v1.Inventory', 'inventory', { traits: ['reads'], methods: 'List' }),
  ...rows('assay.server.v1.Inventory', 'inventory', { methods: 'Import SetState Delete' }),
  ...rows(bundle, 'bundles', {
    traits: ['reads'],
    methods: 'GetFederatedBundle CountBundles ListFederatedBundles',
  }),
  ...rows(bundle, 'bundles', {
    methods:
      'BatchCreateFederatedBundle BatchUpdateFederatedBundle BatchSetFederatedBundle BatchDeleteFederatedBundle',
  }),
  ...rows(trustDomain, 'bundles', {
    traits: ['reads'],
    methods: 'ListFederationRelationships GetFederationRelationship',
  }),
  ...rows(trustDomain, 'bundles', {
    methods:
      'BatchCreateFederationRelationship BatchUpdateFederationRelationship BatchDeleteFederationRelationship RefreshBundle',
  }),
  ...rows(svid, 'svids', { traits: ['narrows'], methods: 'MintX509SVID MintJWTSVID MintWITSVID' }),
  ...rows(bundle, 'authorities', { methods: 'AppendBundle' }),
  ...rows(localAuthority, 'authorities', {
    traits: ['reads'],
    methods: 'GetX509AuthorityState GetJWTAuthorityState GetWITAuthorityState',
  }),
  ...rows(localAuthority, 'authorities', {
    methods:
      'PrepareX509Authority ActivateX509Authority TaintX509Authority TaintX509UpstreamAuthority RevokeX509Authority RevokeX509UpstreamAuthority PrepareJWTAuthority ActivateJWTAuthority TaintJWTAuthority RevokeJWTAuthority PrepareWITAuthority ActivateWITAuthority TaintWITAuthority RevokeWITAuthority',
  }),
  ...rows('assay.server.v1.Keys', 'authorities', { traits: ['reads'], methods: 'GetStatus' }),
  ...rows('assay.server.v1.Keys', 'authorities', { methods: 'Resume AcceptClock Rotate' }),
  ...rows('spire.api.server.debug.v1.Debug', 'server', { traits: ['reads'], methods: 'GetInfo' }),
  ...rows('assay.server.v1.Overview', 'server', { traits: ['reads'], methods: 'Get' }),
  ...rows('spire.api.server.logger.v1.Logger', 'server', {
    traits: ['reads'],
    methods: 'GetLogger',
  }),
  ...rows('spire.api.server.logger.v1.Logger', 'server', {
    methods: 'SetLogLevel ResetLogLevel',
  }),
  ...rows('assay.server.v1.Approvals', 'administrator', {
    traits: ['reads'],
    methods: 'List Get',
  }),
  ...rows('assay.server.v1.Approvals', 'administrator', { methods: 'Approve Deny' }),
  // A backup holds everything, so it is no part of `server`.
  ...rows('assay.server.v1.Backup', 'backup', { methods: 'Create' }),
  ...rows('grpc.health.v1.Health', 'everybody', {
    traits: ['reads'],
    methods: 'Check List Watch',
  }),
])

/** What may be called: some methods by full name, or whatever there is. */
export type CallSelection = ReadonlySet<string> | 'all'

/**
 * Reads a list of sets, methods (`Entry/ListEntries`, with or without package) and whole services (`Entry/*`).
 *
 * @throws SyntaxError that names what is not known, and the nearest that is.
 */
export function parseCalls(names: readonly string[]): ReadonlySet<string> {
  if (names.length === 0) {
    throw new SyntaxError('names no call: an administrator who may do nothing is none')
  }
  return new Set(names.flatMap(parseName))
}

function parseName(name: string): readonly string[] {
  const found = [...calls].filter(([path, traits]) => {
    if (name === 'read') return traits.reads && isSet(traits.set)
    if (!name.includes('/')) return traits.set === name && isSet(name)
    return isNamed(path, name)
  })
  if (found.length > 0) return found.map(([path]) => path)
  const known = name.includes('/') ? [...calls.keys()].map(shortName) : ['read', ...callSets]
  const near = nearest(name, known)
  const hint =
    near === undefined
      ? `there are read, ${callSets.join(', ')}, methods such as Entry/ListEntries, and Entry/*`
      : `did you mean ${near}?`
  throw new SyntaxError(`names ${JSON.stringify(name)}, which is no call; ${hint}`)
}

const isSet = (name: string): boolean => callSets.some((set) => set === name)

/** `Entry/ListEntries` */
export function shortName(method: string): string {
  const [, service = '', name = ''] = method.split('/')
  return `${service.slice(service.lastIndexOf('.') + 1)}/${name}`
}

function isNamed(path: string, name: string): boolean {
  const wanted = name.startsWith('/') ? name.slice(1) : name
  const [service = '', method = '', ...more] = wanted.split('/')
  if (more.length > 0) return false
  const own = service.includes('.') ? path.slice(1) : shortName(path)
  return method === '*' ? own.startsWith(`${service}/`) : own === `${service}/${method}`
}
