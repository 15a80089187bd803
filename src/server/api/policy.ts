/**
 * What a caller can be. `any` is everybody who reached the socket, `local` a process on the administration
 * socket, `admin` an ID of `admin_ids` or of an entry with the admin flag, `agent` an attested node in good
 * standing, `downstream` an ID of an entry with the downstream flag.
 */
export type CallerClass = 'any' | 'local' | 'admin' | 'agent' | 'downstream'

const anyone = ['any'] as const
const agents = ['agent'] as const
const downstream = ['downstream'] as const
const local = ['local'] as const
const operators = ['local', 'admin'] as const
const everyoneKnown = ['local', 'admin', 'agent'] as const

const methods = (
  service: string,
  rows: Readonly<Record<string, readonly CallerClass[]>>,
): readonly (readonly [string, readonly CallerClass[]])[] =>
  Object.entries(rows).map(([method, classes]) => [`/${service}/${method}`, classes])

/**
 * Who may call what, by full method name. What is not here, nobody may. The classes of SPIRE's methods are
 * those of SPIRE's default policy.
 */
export const policy: ReadonlyMap<string, readonly CallerClass[]> = new Map([
  ...methods('spire.api.server.agent.v1.Agent', {
    AttestAgent: anyone,
    RenewAgent: agents,
    PostStatus: agents,
    CountAgents: operators,
    ListAgents: operators,
    GetAgent: operators,
    DeleteAgent: operators,
    BanAgent: operators,
    CreateJoinToken: operators,
  }),
  ...methods('spire.api.server.entry.v1.Entry', {
    GetAuthorizedEntries: agents,
    SyncAuthorizedEntries: agents,
    CountEntries: operators,
    ListEntries: operators,
    GetEntry: operators,
    BatchCreateEntry: operators,
    BatchUpdateEntry: operators,
    BatchDeleteEntry: operators,
  }),
  ...methods('spire.api.server.bundle.v1.Bundle', {
    GetBundle: anyone,
    GetFederatedBundle: everyoneKnown,
    PublishJWTAuthority: downstream,
    PublishWITAuthority: downstream,
    AppendBundle: operators,
    CountBundles: operators,
    ListFederatedBundles: operators,
    BatchCreateFederatedBundle: operators,
    BatchUpdateFederatedBundle: operators,
    BatchSetFederatedBundle: operators,
    BatchDeleteFederatedBundle: operators,
  }),
  ...methods('spire.api.server.svid.v1.SVID', {
    BatchNewX509SVID: agents,
    NewJWTSVID: agents,
    BatchNewWITSVID: agents,
    NewDownstreamX509CA: downstream,
    MintX509SVID: operators,
    MintJWTSVID: operators,
    MintWITSVID: operators,
  }),
  ...methods('spire.api.server.trustdomain.v1.TrustDomain', {
    ListFederationRelationships: operators,
    GetFederationRelationship: operators,
    BatchCreateFederationRelationship: operators,
    BatchUpdateFederationRelationship: operators,
    BatchDeleteFederationRelationship: operators,
    RefreshBundle: operators,
  }),
  ...methods('spire.api.server.localauthority.v1.LocalAuthority', {
    GetX509AuthorityState: operators,
    PrepareX509Authority: operators,
    ActivateX509Authority: operators,
    TaintX509Authority: operators,
    TaintX509UpstreamAuthority: operators,
    RevokeX509Authority: operators,
    RevokeX509UpstreamAuthority: operators,
    GetJWTAuthorityState: operators,
    PrepareJWTAuthority: operators,
    ActivateJWTAuthority: operators,
    TaintJWTAuthority: operators,
    RevokeJWTAuthority: operators,
    GetWITAuthorityState: operators,
    PrepareWITAuthority: operators,
    ActivateWITAuthority: operators,
    TaintWITAuthority: operators,
    RevokeWITAuthority: operators,
  }),
  ...methods('spire.api.server.debug.v1.Debug', { GetInfo: local }),
  ...methods('spire.api.server.logger.v1.Logger', {
    GetLogger: local,
    SetLogLevel: local,
    ResetLogLevel: local,
  }),
  ...methods('grpc.health.v1.Health', { Check: local, List: local, Watch: local }),
  ...methods('assay.server.v1.Backup', { Create: local }),
  ...methods('assay.server.v1.Feed', { Watch: agents, Report: agents }),
  ...methods('assay.server.v1.PostQuantum', {
    GetBundle: anyone,
    BatchNewX509SVID: agents,
    NewJWTSVID: agents,
  }),
  ...methods('assay.server.v1.Inventory', {
    List: operators,
    Import: operators,
    SetState: operators,
    Delete: operators,
  }),
  ...methods('assay.server.v1.Keys', {
    GetStatus: operators,
    Resume: operators,
    AcceptClock: operators,
    Rotate: operators,
  }),
  ...methods('assay.server.v1.Approvals', {
    List: operators,
    Get: operators,
    Approve: operators,
    Deny: operators,
  }),
  ...methods('assay.server.v1.Overview', { Get: operators }),
  ...methods('assay.server.v1.Refusals', { List: operators }),
  ...methods('assay.server.v1.Activity', { GetIssued: operators, WatchNodes: operators }),
])
