// What the server's messages look like to the commands: text forms in, plain records out.
import { AssayError, type ErrorCode } from '#base/errors.ts'
import type { Status as AgentStatus, Refusal } from '#rpc/gen/assay/agent/v1/diagnosis.ts'
import type { PqBundle } from '#rpc/gen/assay/server/v1/post_quantum.ts'
import type { Agent } from '#rpc/gen/spire/api/types/agent.ts'
import type { Bundle as WireBundle } from '#rpc/gen/spire/api/types/bundle.ts'
import type { Entry } from '#rpc/gen/spire/api/types/entry.ts'
import type { Selector as WireSelector } from '#rpc/gen/spire/api/types/selector.ts'
import type { SPIFFEID } from '#rpc/gen/spire/api/types/spiffeid.ts'
import type { Status } from '#rpc/gen/spire/api/types/status.ts'
import type { Bundle } from '#spiffe/bundle.ts'
import { parseSelector, selectorType, selectorValue } from '#spiffe/selector.ts'
import { parseSpiffeId, pathOf, trustDomainOf } from '#spiffe/spiffe-id.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import { timeValue } from './print.ts'

/** @throws SyntaxError when `text` is not a SPIFFE ID. */
export function wireId(text: string): SPIFFEID {
  const id = parseSpiffeId(text)
  return { trustDomain: trustDomainOf(id), path: pathOf(id) }
}

export const idText = (id: SPIFFEID | undefined): string =>
  id === undefined ? '' : `spiffe://${id.trustDomain}${id.path}`

/** @throws SyntaxError when one of `texts` is not `type:value`. */
export function wireSelectors(texts: readonly string[]): WireSelector[] {
  return texts.map((text) => {
    const selector = parseSelector(text)
    return { type: selectorType(selector), value: selectorValue(selector) }
  })
}

const selectorTexts = (selectors: readonly WireSelector[]): readonly string[] =>
  selectors.map(({ type, value }) => `${type}:${value}`)

/** An entry as `--json` prints it. Durations are seconds, times RFC 3339; what is not set is left out. */
export function entryRecord(entry: Entry) {
  return {
    id: entry.id,
    spiffe_id: idText(entry.spiffeId),
    parent_id: idText(entry.parentId),
    selectors: selectorTexts(entry.selectors),
    revision: entry.revisionNumber,
    created_at: timeValue(entry.createdAt),
    ...(entry.x509SvidTtl > 0 && { x509_svid_ttl: entry.x509SvidTtl }),
    ...(entry.jwtSvidTtl > 0 && { jwt_svid_ttl: entry.jwtSvidTtl }),
    ...(entry.federatesWith.length > 0 && { federates_with: entry.federatesWith }),
    ...(entry.dnsNames.length > 0 && { dns_names: entry.dnsNames }),
    ...(entry.hint !== '' && { hint: entry.hint }),
    expires_at: timeValue(entry.expiresAt),
    ...(entry.admin && { admin: true }),
    ...(entry.downstream && { downstream: true }),
    ...(entry.storeSvid && { store_svid: true }),
    ...(entry.additionalAttributes?.disableX509SvidPrefetch && {
      disable_x509_svid_prefetch: true,
    }),
    ...(entry.additionalAttributes?.jwtSvidIncludeJti && { jwt_svid_include_jti: true }),
  }
}

/** A bundle as the rest of Assay has it. @throws SyntaxError when its trust domain is none. */
export function bundleFromWire(bundle: WireBundle): Bundle {
  return {
    trustDomain: parseTrustDomain(bundle.trustDomain),
    x509Authorities: bundle.x509Authorities.map(({ asn1, tainted }) => ({
      certificate: asn1,
      tainted,
    })),
    jwtAuthorities: bundle.jwtAuthorities.map(({ keyId, publicKey, expiresAt, tainted }) => ({
      keyId,
      publicKey,
      expiresAtSeconds: expiresAt,
      tainted,
    })),
    refreshHintSeconds: bundle.refreshHint,
    sequenceNumber: bundle.sequenceNumber,
  }
}

/** The post-quantum bundle of an answer. @throws SyntaxError when its trust domain is none. */
export function pqBundleFromWire({ bundle, pq }: PqBundle): Bundle {
  if (bundle === undefined) throw new SyntaxError('the server sent no bundle')
  return {
    ...bundleFromWire(bundle),
    x509Authorities: (pq?.x509 ?? []).map(({ certificate }) => ({ certificate, tainted: false })),
    jwtAuthorities: (pq?.jwt ?? []).map(({ keyId, publicKey }) => ({
      keyId,
      publicKey,
      expiresAtSeconds: 0,
      tainted: false,
    })),
  }
}

/** An agent as `--json` prints it. */
export function agentRecord(agent: Agent) {
  return {
    id: idText(agent.id),
    attestation_type: agent.attestationType,
    banned: agent.banned,
    can_reattest: agent.canReattest,
    serial_number: agent.x509svidSerialNumber,
    expires_at: timeValue(agent.x509svidExpiresAt),
    selectors: selectorTexts(agent.selectors),
    ...(agent.agentVersion !== '' && { agent_version: agent.agentVersion }),
  }
}

/** What an agent says about itself as `--json` prints it. */
export const agentStatusRecord = (status: AgentStatus) => ({
  version: status.version || undefined,
  state: status.state,
  detail: status.detail,
  agent_id: status.agentId,
  agent_svid_expires_at: timeValue(status.agentSvidExpiresAt),
  last_sync_at: timeValue(status.lastSyncAt),
  clock_offset_ms: status.clockOffsetMs,
  // 64 bits: not a number in JSON.
  revision: String(status.revision),
  node_attestor: status.nodeAttestor,
  node_attestor_detail: status.nodeAttestorDetail,
  entries: status.entries,
  x509_svids: status.x509Svids,
  jwt_svids: status.jwtSvids,
  streams: status.streams,
  bundle_sequence_number: String(status.bundleSequenceNumber),
  workload_bundle_sequence_number: String(status.workloadBundleSequenceNumber),
  report: status.report,
  key_agreement: status.keyAgreement || undefined,
  server_pq: status.serverPq || undefined,
  agent_svid_pq: status.agentSvidPq || undefined,
  authorities: status.authorities.map(({ authorityId, trust, svids, expiresAt }) => ({
    authority_id: authorityId,
    trust,
    svids,
    expires_at: timeValue(expiresAt),
  })),
})

/** By how much the clocks of an agent and its server differ, for people; empty while it is not known. */
export function clockText({ clockOffsetMs }: AgentStatus): string {
  if (clockOffsetMs === undefined) return ''
  const side = clockOffsetMs < 0 ? 'behind' : 'ahead of'
  return `the server's clock is ${Math.abs(clockOffsetMs)} ms ${side} this one`
}

/** Of an agent and its server, for people; empty while there is no connection. */
export function agentPqText({ keyAgreement, serverPq, agentSvidPq }: AgentStatus): string {
  if (keyAgreement === '') return ''
  return [
    `key agreement ${keyAgreement}`,
    `own SVID ${agentSvidPq === '' ? 'signed classically alone' : `signed with ${agentSvidPq} too`}`,
    ...(serverPq === '' ? [] : [`server's SVID ${pqTexts[serverPq] ?? serverPq}`]),
  ].join(', ')
}

/** What was found of post-quantum signatures, in words. */
export const pqTexts: Readonly<Record<string, string>> = {
  verified: 'verified both ways',
  absent: 'verified classically alone',
}

/** A call that the agent refused as `--json` prints it. */
export const refusalRecord = (refusal: Refusal) => ({
  at: timeValue(refusal.at),
  request_id: refusal.requestId,
  method: refusal.method,
  pid: refusal.pid,
  uid: refusal.uid,
  gid: refusal.gid,
  selectors: refusal.selectors,
  reason: refusal.reason,
})

const codes: Readonly<Record<number, ErrorCode>> = {
  3: 'invalid-argument',
  5: 'not-found',
  6: 'already-exists',
  7: 'permission-denied',
  8: 'resource-exhausted',
  9: 'failed-precondition',
  12: 'unimplemented',
  14: 'unavailable',
  16: 'unauthenticated',
}

/** What a failed item of a batch means. */
export const errorCodeOf = (status: Status): ErrorCode => codes[status.code] ?? 'internal'

/** @throws AssayError when one item of a batch failed. */
export function requireOk(status: Status | undefined, what: string): void {
  if (status === undefined || status.code === 0) return
  const action = `cannot ${what}`
  // The server may have said already what could not be done.
  const message = status.message.startsWith(action)
    ? status.message
    : `${action}: ${status.message}`
  throw new AssayError(errorCodeOf(status), message)
}

/** Every item of a paged list. */
export async function* pages<T>(
  page: (
    pageToken: string,
  ) => Promise<{ readonly items: readonly T[]; readonly nextPageToken: string }>,
): AsyncGenerator<T> {
  let token = ''
  do {
    const { items, nextPageToken } = await page(token)
    yield* items
    token = nextPageToken
  } while (token !== '')
}
