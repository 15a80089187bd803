import { AssayError } from '#base/errors.ts'
import { nextTurn } from '#base/event-loop.ts'
import type { Csr } from '#pki/csr.ts'
import type { CallContext } from '#rpc/call.ts'
import type {
  BatchNewX509SVIDRequest,
  BatchNewX509SVIDResponse_Result,
  MintJWTSVIDRequest,
  MintX509SVIDRequest,
  NewDownstreamX509CARequest,
  NewJWTSVIDRequest,
  NewX509SVIDParams,
} from '#rpc/gen/spire/api/server/svid/v1/svid.ts'
import type { JWTSVID } from '#rpc/gen/spire/api/types/jwtsvid.ts'
import type { RegistrationEntry } from '#spiffe/registration-entry.ts'
import { parseSpiffeId, pathOf, type SpiffeId, spiffeId, trustDomainOf } from '#spiffe/spiffe-id.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import type { AuthorityManager } from '../authority/authority-manager.ts'
import type { BundleCache } from '../bundle/bundle-cache.ts'
import type {
  CertificateAuthority,
  IssuedJwtSvid,
  IssuedX509Svid,
  JwtSvidRequest,
  X509SvidRequest,
} from '../ca/certificate-authority.ts'
import { coveredByWildcard } from '../entry/dns-name.ts'
import type { NodeHoldings } from '../node/node-holdings.ts'
import { x509SvidMessage } from './agent-messages.ts'
import { readCsr } from './attest-agent.ts'
import { agentOf } from './authorize.ts'
import { itemStatus, okStatus } from './batch.ts'
import { noBundle } from './bundle-messages.ts'
import { notesOf } from './call-notes.ts'
import type { Guard } from './guard.ts'
import { idMessage, malformed, maxItems, parseIdMessage } from './messages.ts'
import { unimplemented } from './unimplemented.ts'

/** Which entries an agent may serve, from memory. */
export interface EntriesOfAgents {
  /** The entry when the agent is authorized for it; undefined also when there is none. */
  entryFor(agentId: SpiffeId, entryId: string): RegistrationEntry | undefined
}

export interface SvidServiceDependencies {
  readonly trustDomain: TrustDomain
  readonly entries: EntriesOfAgents
  readonly authority: CertificateAuthority
  readonly authorities: Pick<AuthorityManager, 'noteMinted'>
  readonly holdings: Pick<NodeHoldings, 'handedOut'>
  readonly bundles: Pick<BundleCache, 'bundle'>
  readonly guard: Guard
}

/** How many SVIDs of a batch are signed before other calls get their turn: some 2 ms of work. */
const turnSize = 8

/** `spire.api.server.svid.v1.SVID`: signs for agents what their entries say, and for operators anything. */
export function newSvidService(dependencies: SvidServiceDependencies) {
  const { trustDomain, authority, authorities, guard } = dependencies
  return {
    batchNewX509SVID: newX509Batch({
      ...dependencies,
      readCsr,
      issue: (request) => authority.issueX509Svid(request),
    }),

    newJWTSVID: newJwtSvid({
      ...dependencies,
      issue: (request) => authority.issueJwtSvid(request),
    }),

    /** The request names the ID and DNS names itself; operators are trusted with that. */
    async mintX509SVID({ csr: der, ttl }: MintX509SVIDRequest, context: CallContext) {
      if (der.length === 0) throw malformed('CSR', 'it is missing')
      const csr = readCsr(der)
      const [uri, second] = csr.uris
      if (uri === undefined || second !== undefined) {
        throw malformed('CSR', 'it must have exactly one URI, the SPIFFE ID')
      }
      const covered = coveredByWildcard(csr.dnsNames)
      if (covered !== undefined) {
        throw malformed('CSR', `a wildcard covers its DNS name ${covered}; leave one out`)
      }
      const id = workloadId(parseUri(uri))
      guard.checkIssue(context, id)
      const svid = await authority.issueX509Svid({
        spiffeId: id,
        publicKey: csr.publicKey,
        dnsNames: csr.dnsNames,
        ttlSeconds: ttl,
      })
      await authorities.noteMinted(svid.authorityId, svid.expiresAtSeconds)
      notesOf(context).subject = svid.spiffeId
      notesOf(context).details = {
        serialNumber: svid.serialNumber,
        expiresAt: svid.expiresAtSeconds,
        ...(csr.dnsNames.length > 0 && { dnsNames: csr.dnsNames.slice(0, 100) }),
      }
      return { svid: x509SvidMessage(svid) }
    },

    async mintJWTSVID({ id, audience, ttl }: MintJWTSVIDRequest, context: CallContext) {
      const subject = workloadId(parseIdMessage(id, 'SPIFFE ID'))
      guard.checkIssue(context, subject)
      const svid = await authority.issueJwtSvid({
        spiffeId: subject,
        audience,
        ttlSeconds: ttl,
        includeJti: false,
      })
      notesOf(context).subject = svid.spiffeId
      notesOf(context).details = { audience, expiresAt: svid.expiresAtSeconds }
      return { svid: jwtSvidMessage(svid, '') }
    },

    mintWITSVID: unimplemented('WIT-SVIDs are not supported'),
    batchNewWITSVID: unimplemented('WIT-SVIDs are not supported'),

    /**
     * A CA for a server below this one. Nothing of the request but its key is used. Until that CA ends, whoever retires
     * the authority above it waits: of what it has signed nobody here knows.
     */
    async newDownstreamX509CA(
      { csr: der, preferredTtl }: NewDownstreamX509CARequest,
      context: CallContext,
    ) {
      if (der.length === 0) throw malformed('CSR', 'it is missing')
      const { publicKey } = readCsr(der)
      const ca = await authority.issueDownstreamCa({ publicKey, ttlSeconds: preferredTtl })
      await authorities.noteMinted(ca.authorityId, ca.expiresAtSeconds)
      notesOf(context).subject = spiffeId(trustDomain, '')
      notesOf(context).details = {
        serialNumber: ca.serialNumber,
        expiresAt: ca.expiresAtSeconds,
        authorityId: ca.authorityId,
      }
      const bundle = dependencies.bundles.bundle(trustDomain) ?? noBundle(trustDomain)
      return {
        caCertChain: [...ca.certificates],
        x509Authorities: bundle.x509Authorities.map(({ certificate }) => certificate),
      }
    },
  }

  function workloadId(id: SpiffeId): SpiffeId {
    if (trustDomainOf(id) !== trustDomain) {
      throw malformed('SPIFFE ID', `${id} is not a member of trust domain ${trustDomain}`)
    }
    if (/^\/spire(\/|$)|^$/.test(pathOf(id))) {
      throw malformed('SPIFFE ID', `${id} is not a workload’s: it has no path, or a reserved one`)
    }
    return id
  }
}

/** What differs between classical X.509-SVIDs and post-quantum ones. */
export interface X509BatchOptions extends Pick<SvidServiceDependencies, 'entries' | 'holdings'> {
  /** Throws for an entry that may not have one. */
  readonly check?: (entry: RegistrationEntry) => void
  /** Reads a request (DER), and checks that the requester holds the key. */
  readonly readCsr: (der: Uint8Array) => Csr
  readonly issue: (request: X509SvidRequest) => Promise<IssuedX509Svid>
}

/** One X.509-SVID for each item, by its entry; an item that is refused does not stop the others. */
export function newX509Batch(options: X509BatchOptions) {
  return async ({ params }: BatchNewX509SVIDRequest, context: CallContext) => {
    if (params.length > maxItems) throw malformed('batch', `more than ${maxItems} items`)
    const agentId = agentOf(context)
    const results: BatchNewX509SVIDResponse_Result[] = []
    const issued: string[] = []
    for (let at = 0; at < params.length; at += turnSize) {
      if (at > 0) await nextTurn()
      context.signal.throwIfAborted()
      const turn = params.slice(at, at + turnSize)
      results.push(
        ...(await Promise.all(turn.map((item) => newX509Svid(options, { agentId, item, issued })))),
      )
    }
    notesOf(context).details = { issued, refused: params.length - issued.length }
    return { results }
  }
}

/**
 * Nothing of the request but its key is used: who the SVID is for is the entry's business. `issued` gets the
 * entry id and the serial.
 */
async function newX509Svid(
  { entries, holdings, check, readCsr, issue }: X509BatchOptions,
  {
    agentId,
    item: { entryId, csr: der },
    issued,
  }: { readonly agentId: SpiffeId; readonly item: NewX509SVIDParams; readonly issued: string[] },
): Promise<BatchNewX509SVIDResponse_Result> {
  try {
    const entry = authorizedEntry({ entries }, agentId, entryId)
    check?.(entry)
    if (der.length === 0) throw malformed('CSR', 'it is missing')
    const svid = await issue({
      spiffeId: entry.spiffeId,
      publicKey: readCsr(der).publicKey,
      dnsNames: entry.dnsNames,
      ttlSeconds: entry.x509SvidTtlSeconds,
    })
    issued.push(`${entryId} ${svid.serialNumber}`)
    holdings.handedOut(agentId, { ...svid, entryId })
    return { status: okStatus, svid: x509SvidMessage(svid, entry.hint) }
  } catch (error) {
    return { status: itemStatus(error), svid: undefined }
  }
}

/** One JWT-SVID by its entry, for an agent. */
export function newJwtSvid({
  entries,
  check,
  issue,
}: Pick<X509BatchOptions, 'entries' | 'check'> & {
  readonly issue: (request: JwtSvidRequest) => Promise<IssuedJwtSvid>
}) {
  return async ({ entryId, audience }: NewJWTSVIDRequest, context: CallContext) => {
    const entry = authorizedEntry({ entries }, agentOf(context), entryId)
    notesOf(context).subject = entryId
    check?.(entry)
    const svid = await issue({
      spiffeId: entry.spiffeId,
      audience,
      ttlSeconds: entry.jwtSvidTtlSeconds,
      includeJti: entry.jwtSvidIncludeJti,
    })
    return { svid: jwtSvidMessage(svid, entry.hint) }
  }
}

/** @throws AssayError `not-found` unless there is such an entry, and the agent may serve it. */
function authorizedEntry(
  { entries }: Pick<SvidServiceDependencies, 'entries'>,
  agentId: SpiffeId,
  entryId: string,
): RegistrationEntry {
  if (entryId === '') throw malformed('entry ID', 'it is missing')
  const entry = entries.entryFor(agentId, entryId)
  if (entry !== undefined) return entry
  throw new AssayError('not-found', 'entry not found or not authorized', {
    reason: 'entry-not-authorized',
  })
}

function parseUri(uri: string): SpiffeId {
  try {
    return parseSpiffeId(uri)
  } catch (error) {
    throw malformed('CSR', error)
  }
}

/** A JWT-SVID on the wire. */
const jwtSvidMessage = (svid: IssuedJwtSvid, hint: string): JWTSVID => ({
  token: svid.token,
  id: idMessage(svid.spiffeId),
  expiresAt: svid.expiresAtSeconds,
  issuedAt: svid.issuedAtSeconds,
  hint,
})
