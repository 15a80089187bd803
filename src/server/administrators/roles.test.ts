import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseSpiffeId } from '#spiffe/spiffe-id.ts'
import { calls, parseCalls, shortName } from './calls.ts'
import { Rights } from './rights.ts'

// Every call by role, written out a second time: a call that changes its place shows here.

const reads: Readonly<Record<string, string>> = {
  entries: 'Entry/CountEntries Entry/ListEntries Entry/GetEntry',
  nodes: 'Agent/CountAgents Agent/ListAgents Agent/GetAgent Refusals/List Activity/WatchNodes',
  inventory: 'Inventory/List',
  bundles:
    'Bundle/GetFederatedBundle Bundle/CountBundles Bundle/ListFederatedBundles TrustDomain/ListFederationRelationships TrustDomain/GetFederationRelationship',
  svids: '',
  authorities:
    'LocalAuthority/GetX509AuthorityState LocalAuthority/GetJWTAuthorityState LocalAuthority/GetWITAuthorityState Keys/GetStatus',
  server: 'Debug/GetInfo Overview/Get Activity/GetIssued Logger/GetLogger',
}
const changes: Readonly<Record<string, string>> = {
  entries: 'Entry/BatchCreateEntry Entry/BatchUpdateEntry Entry/BatchDeleteEntry',
  nodes: 'Agent/DeleteAgent Agent/BanAgent Agent/CreateJoinToken',
  inventory: 'Inventory/Import Inventory/SetState Inventory/Delete',
  bundles:
    'Bundle/BatchCreateFederatedBundle Bundle/BatchUpdateFederatedBundle Bundle/BatchSetFederatedBundle Bundle/BatchDeleteFederatedBundle TrustDomain/BatchCreateFederationRelationship TrustDomain/BatchUpdateFederationRelationship TrustDomain/BatchDeleteFederationRelationship TrustDomain/RefreshBundle',
  svids: 'SVID/MintX509SVID SVID/MintJWTSVID SVID/MintWITSVID',
  authorities:
    'Bundle/AppendBundle LocalAuthority/PrepareX509Authority LocalAuthority/ActivateX509Authority LocalAuthority/TaintX509Authority LocalAuthority/TaintX509UpstreamAuthority LocalAuthority/RevokeX509Authority LocalAuthority/RevokeX509UpstreamAuthority LocalAuthority/PrepareJWTAuthority LocalAuthority/ActivateJWTAuthority LocalAuthority/TaintJWTAuthority LocalAuthority/RevokeJWTAuthority LocalAuthority/PrepareWITAuthority LocalAuthority/ActivateWITAuthority LocalAuthority/TaintWITAuthority LocalAuthority/RevokeWITAuthority Keys/Resume Keys/AcceptClock Keys/Rotate',
  server: 'Logger/SetLogLevel Logger/ResetLogLevel',
  backup: 'Backup/Create',
}
const everySet = Object.keys(changes)

const words = (...texts: readonly (string | undefined)[]): string[] =>
  texts.flatMap((text) => text?.split(' ') ?? []).filter((word) => word !== '')

/** Calls that keep to SPIFFE ID prefixes. */
const narrowing = new Set(
  words(
    'Entry/CountEntries Entry/ListEntries Entry/GetEntry',
    changes['entries'],
    'Agent/CountAgents Agent/ListAgents Agent/GetAgent Activity/WatchNodes',
    changes['nodes'],
    changes['svids'],
  ),
)

const roles: readonly (readonly [string, readonly string[]])[] = [
  ['read', words(...Object.values(reads))],
  ...everySet.map((set) => [set, words(reads[set], changes[set])] as const),
]
const prefix = parseSpiffeId('spiffe://example.org/web')

for (const [role, may] of roles) {
  test(`an administrator with calls: [${role}] may make these calls and no other, narrowed or not`, () => {
    const selected = parseCalls([role])
    const wide = new Rights('x', [{ by: 'x', calls: selected, prefixes: undefined }])
    const narrow = new Rights('x', [{ by: 'x', calls: selected, prefixes: [prefix] }])
    for (const [method, { set }] of calls) {
      if (set === 'everybody' || set === 'administrator') continue
      const name = shortName(method)
      assert.equal(wide.permission(method) !== undefined, may.includes(name), name)
      const kept = may.includes(name) && narrowing.has(name)
      assert.deepEqual(narrow.permission(method)?.prefixes, kept ? [prefix] : undefined, name)
      assert.equal(narrow.isTooNarrowFor(method), may.includes(name) && !kept, name)
    }
  })
}

test('every call is in exactly one set', () => {
  const named = words(...Object.values(reads), ...Object.values(changes))
  assert.equal(new Set(named).size, named.length)
  const classified = [...calls]
    .filter(([, { set }]) => set !== 'everybody' && set !== 'administrator')
    .map(([method]) => shortName(method))
  assert.deepEqual(classified.sort(), named.sort())
})
