import { AssayError } from '#base/errors.ts'
import { version } from '#base/version.ts'
import { parseCertificate } from '#pki/certificate.ts'
import { altSignature } from '#pq-crypto/alternative-signature.ts'
import type { CallContext } from '#rpc/call.ts'
import type {
  DiagnosisDefinition,
  ExplainRequest,
  Explanation,
  ListRefusalsRequest,
  ListRefusalsResponse,
  NearMiss,
  Refusal,
  Status,
} from '#rpc/gen/assay/agent/v1/diagnosis.ts'
import type { Handlers } from '#rpc/service.ts'
import { type Selector, selectorSet } from '#spiffe/selector.ts'
import { holdProcess } from '../attestation/local-process.ts'
import type { WorkloadAttestation } from '../attestation/workload-attestation.ts'
import { byEntryId } from '../manager/agent-entry.ts'
import type { Identities } from '../manager/identities.ts'
import type { Reporter } from '../manager/reporter.ts'
import type { NodeAttestor } from '../plugin/node-attestor/node-attestor.ts'
import type { AgentStatus } from '../status.ts'
import type { Refusals, WorkloadRefusal } from '../workload-api/refusals.ts'

export interface DiagnosisDependencies {
  readonly identities: Identities
  readonly attestation: WorkloadAttestation
  readonly refusals: Refusals
  readonly status: AgentStatus
  readonly nodeAttestor: NodeAttestor
  readonly reporter: Reporter
}

const maxNearMisses = 5

/** `assay.agent.v1.Diagnosis`: what the agent would serve to a process, and why. */
export function diagnosisService(of: DiagnosisDependencies): Handlers<DiagnosisDefinition> {
  const { refusals } = of
  return {
    explain: async (request: ExplainRequest, { signal }: CallContext): Promise<Explanation> => {
      const { selectors, refusal } = await subjectOf(of, request, signal)
      return explain(of, selectors, refusal)
    },
    listRefusals: async ({ limit }: ListRefusalsRequest): Promise<ListRefusalsResponse> => {
      if (limit < 0) throw invalid(`limit is ${limit}; it must not be negative`)
      return { refusals: refusals.list(limit).map(refusalMessage) }
    },
    getStatus: async (): Promise<Status> => statusMessage(of),
  }
}

interface Subject {
  readonly selectors: readonly Selector[]
  readonly refusal: WorkloadRefusal | undefined
}

async function subjectOf(
  { attestation, refusals }: DiagnosisDependencies,
  { subject }: ExplainRequest,
  signal: AbortSignal,
): Promise<Subject> {
  switch (subject?.$case) {
    case 'pid':
      if (subject.value <= 0) throw invalid(`pid is ${subject.value}; it must be positive`)
      return { selectors: await attestPid(attestation, subject.value, signal), refusal: undefined }
    case 'user':
      return { selectors: await attestation.attestUser(subject.value), refusal: undefined }
    case 'requestId': {
      const refusal = refusals.find(subject.value)
      if (refusal !== undefined) return { selectors: refusal.selectors, refusal }
      throw new AssayError(
        'not-found',
        `no refusal of request ${subject.value} is remembered: it was served, is too long ago, or was before the agent started`,
      )
    }
    case undefined:
      throw invalid('one of pid, user and request_id must be given')
  }
}

async function attestPid(
  attestation: WorkloadAttestation,
  pid: number,
  signal: AbortSignal,
): Promise<readonly Selector[]> {
  using process = holdProcess(pid)
  return await attestation.attest(process, signal)
}

function explain(
  of: DiagnosisDependencies,
  selectors: readonly Selector[],
  refusal: WorkloadRefusal | undefined,
): Explanation {
  const { identities } = of
  const shown = new Set(selectors)
  const matches = identities.entitlementOf(selectorSet(selectors)).entries
  return {
    selectors: [...selectorSet(selectors)],
    matches: matches.map((entry) => ({
      entryId: entry.id,
      spiffeId: entry.spiffeId,
      hint: entry.hint,
      x509SvidExpiresAt: identities.x509SvidExpiryOf(entry.id),
    })),
    nearMisses: nearMisses(identities, shown),
    entries: identities.counts.entries,
    agent: statusMessage(of),
    refusal: refusal && refusalMessage(refusal),
  }
}

/** Entries that lack the fewest selectors, best first. */
function nearMisses(identities: Identities, shown: ReadonlySet<Selector>): NearMiss[] {
  const misses = [...identities.entries].flatMap((entry) => {
    const missing = entry.selectors.filter((each) => !shown.has(each))
    return missing.length === 0 || entry.storeSvid ? [] : [{ entry, missing }]
  })
  return misses
    .sort((a, b) => a.missing.length - b.missing.length || byEntryId(a.entry, b.entry))
    .slice(0, maxNearMisses)
    .map(({ entry, missing }) => ({ entryId: entry.id, spiffeId: entry.spiffeId, missing }))
}

function statusMessage(of: DiagnosisDependencies): Status {
  const { identities, status, nodeAttestor, reporter } = of
  const { entries, x509Svids, jwtSvids } = identities.counts
  const node = nodeAttestor.status()
  const { bundleSequenceNumber, authorities } = reporter.holdings()
  return {
    state: status.state,
    detail: status.detail,
    agentId: status.agentId ?? '',
    agentSvidExpiresAt: status.agentSvidExpiresAtSeconds,
    lastSyncAt: status.lastSyncAtSeconds,
    revision: identities.revision,
    nodeAttestor: node.state,
    nodeAttestorDetail: node.detail,
    entries,
    x509Svids,
    jwtSvids,
    streams: status.streams,
    bundleSequenceNumber: identities.bundles.own?.sequenceNumber ?? 0n,
    workloadBundleSequenceNumber: bundleSequenceNumber,
    report: reporter.state,
    authorities: authorities.map(({ authorityId, svids, expiresAtMs }) => ({
      authorityId,
      trust: identities.bundles.trustOf(authorityId),
      svids,
      expiresAt: Math.trunc(expiresAtMs / 1000),
    })),
    keyAgreement: status.keyAgreement ?? '',
    serverPq: status.serverPq ?? '',
    agentSvidPq: signedWithOf(status.agentSvid),
    version,
    clockOffsetMs:
      status.clockOffsetMs === undefined ? undefined : Math.round(status.clockOffsetMs),
  }
}

/** The parameter set of the alternative signature of an SVID (DER, leaf first); empty: it has none. */
function signedWithOf([leaf]: readonly Uint8Array[]): string {
  if (leaf === undefined) return ''
  try {
    return altSignature(parseCertificate(leaf))?.parameterSet ?? ''
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error
    return ''
  }
}

function refusalMessage(refusal: WorkloadRefusal): Refusal {
  const { atSeconds: at, requestId, method, pid, uid, gid, selectors, reason } = refusal
  return { at, requestId, method, pid, uid, gid, selectors: [...selectors], reason }
}

function invalid(message: string): AssayError {
  return new AssayError('invalid-argument', message)
}
