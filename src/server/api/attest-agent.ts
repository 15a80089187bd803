import type { Clock } from '#base/clock.ts'
import { AssayError } from '#base/errors.ts'
import type { Log } from '#base/log.ts'
import { type Csr, parseCsr, verifyCsr } from '#pki/csr.ts'
import type { CallContext } from '#rpc/call.ts'
import type {
  AttestAgentRequest,
  AttestAgentRequest_Params,
  AttestAgentResponse,
} from '#rpc/gen/spire/api/server/agent/v1/agent.ts'
import { selectorSet } from '#spiffe/selector.ts'
import { type SpiffeId, spiffeId } from '#spiffe/spiffe-id.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import type { CertificateAuthority } from '../ca/certificate-authority.ts'
import type { AttestedNodeRecord, Datastore } from '../datastore/datastore.ts'
import { asBanned, isBanned } from '../node/banned.ts'
import type { NodeHoldings } from '../node/node-holdings.ts'
import type { AttestedNode, NodeAttestor } from '../plugin/node-attestor/node-attestor.ts'
import { x509SvidMessage } from './agent-messages.ts'
import { notesOf } from './call-notes.ts'
import { malformed } from './messages.ts'

/** What attestation of agents works with. */
export interface AttestAgentDependencies {
  readonly trustDomain: TrustDomain
  /** By {@link NodeAttestor.type}. */
  readonly attestors: ReadonlyMap<string, NodeAttestor>
  readonly authority: Pick<CertificateAuthority, 'issueX509Svid'>
  readonly datastore: Pick<Datastore, 'node' | 'writeNode' | 'updateNode'>
  readonly holdings: Pick<NodeHoldings, 'handedOut'>
  readonly clock: Clock
  readonly log: Log
  /** Told of every attestation: a node that attests while it is connected from elsewhere is worth an alarm. */
  onAttested(agentId: SpiffeId, address: string): void
}

/** Longest an attestation may take, challenges included: a slow TPM needs some ten seconds for its keys. */
const maxAttestationSeconds = 120

/** Longest first message of a node attestor, in bytes. */
const maxPayloadBytes = 1 << 20

/**
 * `Agent.AttestAgent`: the request's signature is checked, then the node attestor the agent names proves the
 * node, and only then is there an SVID. The reply may get lost: nothing but a one-time secret is used up by
 * an attestation that the agent does not hear the end of.
 */
export async function* attestAgent(
  dependencies: AttestAgentDependencies,
  requests: AsyncIterable<AttestAgentRequest>,
  context: CallContext,
): AsyncGenerator<AttestAgentResponse, void, void> {
  const incoming = requests[Symbol.asyncIterator]()
  const notes = notesOf(context)
  // Until the agent has said how, it is an attestation all the same.
  notes.attestationType = ''
  const params = readParams((await incoming.next()).value)
  notes.attestationType = params.data.type
  const attestor = findAttestor(dependencies.attestors, params.data.type)
  const csr = readCsr(params.csr)
  const proved = yield* converse({ dependencies, attestor, params, csr, incoming, context })
  notes.subject = proved.agentId
  const { svid, node } = await admit(dependencies, { attestor, proved, csr })
  notes.details = {
    serialNumber: node.serialNumber,
    expiresAt: node.expiresAtSeconds,
    keyAgreement: context.peer.kind === 'tls' ? context.peer.keyAgreement : undefined,
  }
  dependencies.onAttested(node.agentId, addressOf(context))
  yield { step: { $case: 'result', value: { svid, reattestable: node.canReattest } } }
}

interface Params {
  readonly data: { readonly type: string; readonly payload: Uint8Array }
  readonly csr: Uint8Array
}

function readParams(request: AttestAgentRequest | undefined): Params {
  const params: AttestAgentRequest_Params | undefined =
    request?.step?.$case === 'params' ? request.step.value : undefined
  if (params === undefined) throw malformed('param', 'missing params')
  if (params.data === undefined) throw malformed('param', 'missing attestation data')
  if (params.data.type === '') throw malformed('param', 'missing attestation data type')
  if (params.data.payload.length === 0) throw malformed('param', 'missing attestation payload')
  if (params.data.payload.length > maxPayloadBytes) {
    throw malformed('param', `the attestation payload is longer than ${maxPayloadBytes} bytes`)
  }
  if (params.params === undefined) throw malformed('param', 'missing X509-SVID parameters')
  if (params.params.csr.length === 0) throw malformed('param', 'missing CSR')
  return { data: params.data, csr: params.params.csr }
}

function findAttestor(attestors: ReadonlyMap<string, NodeAttestor>, type: string): NodeAttestor {
  const attestor = attestors.get(type)
  if (attestor !== undefined) return attestor
  const known = [...attestors.keys()].join(', ')
  throw new AssayError(
    'failed-precondition',
    `cannot attest with ${JSON.stringify(type.slice(0, 64))}: this server has ${known === '' ? 'no node attestors' : known}`,
    { reason: 'node-attestor-unknown' },
  )
}

/** A request whose signature shows that the sender holds its key. @throws AssayError `invalid-argument`. */
export function readCsr(der: Uint8Array): Csr {
  let csr: Csr
  try {
    csr = parseCsr(der)
  } catch (error) {
    throw malformed('CSR', error)
  }
  verifyCsr(csr)
  return csr
}

/**
 * Runs the node attestor, passing its challenges on to the agent and the responses back.
 *
 * @returns what it proved.
 */
async function* converse(conversation: {
  readonly dependencies: AttestAgentDependencies
  readonly attestor: NodeAttestor
  readonly params: Params
  readonly csr: Csr
  readonly incoming: AsyncIterator<AttestAgentRequest>
  readonly context: CallContext
}): AsyncGenerator<AttestAgentResponse, AttestedNode, void> {
  const { dependencies, attestor, params, csr, incoming, context } = conversation
  const ended = new AbortController()
  const late = new AbortController()
  const signal = AbortSignal.any([context.signal, late.signal, ended.signal])
  const aborted = rejectionOf(signal)
  void dependencies.clock
    .sleep(Temporal.Duration.from({ seconds: maxAttestationSeconds }), ended.signal)
    .then(
      () => late.abort(tooSlow()),
      () => {},
    )
  let asked = Promise.withResolvers<Uint8Array>()
  let answered = Promise.withResolvers<Uint8Array>()
  const { peer } = context
  const attesting = attestor.attest({
    payload: params.data.payload,
    csr: csr.raw,
    csrPublicKey: csr.publicKey,
    peerAddress: addressOf(context),
    tlsExporter: (label, length) =>
      peer.kind === 'tls' ? peer.exporter(label, length) : undefined,
    challenge: (challenge) => {
      answered = Promise.withResolvers()
      asked.resolve(challenge)
      return answered.promise
    },
    signal,
  })
  const proved = attesting.then((node) => ({ node }) as const)
  // It is looked at below; until then a failure must not count as unhandled.
  proved.catch(() => {})
  try {
    for (;;) {
      const turn = await Promise.race([proved, asked.promise, aborted])
      if (!(turn instanceof Uint8Array)) return turn.node
      asked = Promise.withResolvers()
      yield { step: { $case: 'challenge', value: turn } }
      const response = await Promise.race([incoming.next(), aborted])
      answered.resolve(readResponse(response.done === true ? undefined : response.value))
    }
  } finally {
    ended.abort(new Error('the attestation has ended'))
    answered.promise.catch(() => {})
    answered.reject(ended.signal.reason)
  }
}

function readResponse(request: AttestAgentRequest | undefined): Uint8Array {
  if (request?.step?.$case === 'challengeResponse') return request.step.value
  throw malformed('message', 'a challenge response was expected')
}

const tooSlow = (): AssayError =>
  new AssayError(
    'failed-precondition',
    `cannot attest: it took longer than ${maxAttestationSeconds} seconds`,
    { reason: 'attestation-timeout' },
  )

/** A promise that only ever rejects, with the signal's reason. */
function rejectionOf(signal: AbortSignal): Promise<never> {
  const { promise, reject } = Promise.withResolvers<never>()
  promise.catch(() => {})
  if (signal.aborted) reject(signal.reason)
  signal.addEventListener('abort', () => reject(signal.reason), { once: true })
  return promise
}

/** Gives a node that has proved itself its SVID, and records it. A banned node gets neither. */
async function admit(
  dependencies: AttestAgentDependencies,
  attestation: {
    readonly attestor: NodeAttestor
    readonly proved: AttestedNode
    readonly csr: Csr
  },
) {
  const { trustDomain, datastore, authority, clock } = dependencies
  const { attestor, proved, csr } = attestation
  const { agentId, canReattest } = proved
  if (!agentId.startsWith(`${spiffeId(trustDomain, `/spire/agent/${attestor.type}`)}/`)) {
    throw new AssayError(
      'internal',
      `cannot admit ${agentId}: the node attestor ${attestor.type} may not give this ID`,
      { reason: 'agent-id-not-allowed' },
    )
  }
  const known = await datastore.node(agentId)
  if (known !== undefined) refuseBanned(known)
  const svid = await authority.issueX509Svid({
    spiffeId: agentId,
    publicKey: csr.publicKey,
    ttlSeconds: 0,
  })
  const made: AttestedNodeRecord = {
    agentId,
    attestationType: attestor.type,
    serialNumber: svid.serialNumber,
    expiresAtSeconds: svid.expiresAtSeconds,
    newSerialNumber: '',
    newExpiresAtSeconds: 0,
    canReattest,
    selectors: selectorSet(proved.selectors),
    agentVersion: known?.agentVersion ?? '',
    attestedAtSeconds: Math.floor(clock.now().epochMilliseconds / 1000),
  }
  const node = await datastore.writeNode(agentId, (present) => {
    // An operator may have banned it since.
    if (present !== undefined) refuseBanned(present)
    return made
  })
  await confirm(dependencies, proved)
  dependencies.holdings.handedOut(agentId, { ...svid, entryId: '' })
  dependencies.log.info({ spiffeId: agentId, type: attestor.type }, 'agent attested')
  return { svid: x509SvidMessage(svid), node }
}

/**
 * Asks the attestor once more, now that there is a record that a ban would find: of a ban and an attestation at the
 * same moment, one sees the other.
 */
async function confirm(
  { datastore }: AttestAgentDependencies,
  { agentId, confirm: confirmed }: AttestedNode,
): Promise<void> {
  try {
    await confirmed?.()
  } catch (error) {
    await datastore.updateNode(agentId, asBanned)
    throw error
  }
}

function refuseBanned(node: AttestedNodeRecord): void {
  if (!isBanned(node)) return
  throw new AssayError('permission-denied', 'failed to attest: agent is banned', {
    reason: 'agent-banned',
  })
}

/** Where a call came from, for limits and records. */
export const addressOf = ({ peer }: CallContext): string =>
  peer.kind === 'tls' ? peer.address : 'local'
