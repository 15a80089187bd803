import {
  encodeAnswer,
  encodeEvidence,
  exporter,
  parseChallenge,
  proofOf,
  type TpmChallenge,
  tpmAttestationType,
  transcript,
} from '#attestation/tpm.ts'
import type { Clock } from '#base/clock.ts'
import { AssayError, messageOf } from '#base/errors.ts'
import type { Log } from '#base/log.ts'
import type { Random } from '#base/random.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import { activateCredential, type LoadedKey } from '#tpm/device/commands.ts'
import { readClaims } from '#tpm/device/description.ts'
import {
  createAttestationKey,
  type EndorsementOptions,
  flushLeftovers,
  type LoadedEndorsementKey,
  loadEndorsementKey,
  startEndorsementSession,
} from '#tpm/device/endorsement.ts'
import { quotePcrs } from '#tpm/device/quote-pcrs.ts'
import { Tpm } from '#tpm/device/tpm.ts'
import { describeFailure } from '#tpm/device/tpm-error.ts'
import { writePublicArea } from '#tpm/wire/public-area.ts'
import { subjectPublicKeyInfo } from '#tpm/wire/public-key.ts'
import type { EndorsementKeyProfileName } from '#tpm/wire/templates.ts'
import type {
  Attestation,
  AttestationExchange,
  NodeAttestor,
  NodeAttestorStatus,
} from './node-attestor.ts'

/** What the agent's half of TPM attestation works with. */
export interface TpmNodeAttestorOptions {
  /** `device:/dev/tpmrm0`, `tabrmd`, `swtpm:path=/socket`. */
  readonly tcti: string
  readonly trustDomain: TrustDomain
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  /** Undefined: the first of `endorsementKeyProfiles` the TPM has a certificate for. It decides the identity. */
  readonly endorsementKey?: EndorsementKeyProfileName | undefined
  /** Password of the endorsement hierarchy; undefined where the site has set none. */
  readonly endorsementPassword?: Uint8Array | undefined
}

/**
 * Proves a node by its TPM. Every attestation opens the TPM, makes both keys anew and frees everything at its
 * end, so that nothing is kept in memory, on disk or in the TPM, and a failure of the TPM ends with the attempt
 * it happened in. Its errors have a `DeviceProblem` as their reason. Attestations at the same time take turns.
 */
export function createTpmNodeAttestor(options: TpmNodeAttestorOptions): NodeAttestor {
  return new TpmNodeAttestor(options)
}

class TpmNodeAttestor implements NodeAttestor {
  readonly type = tpmAttestationType
  readonly #options: TpmNodeAttestorOptions
  #status: NodeAttestorStatus = { state: 'ok', detail: '' }
  #turn: Promise<void> = Promise.resolve()

  constructor(options: TpmNodeAttestorOptions) {
    this.#options = options
  }

  status(): NodeAttestorStatus {
    return this.#status
  }

  async attest(exchange: AttestationExchange): Promise<Attestation> {
    await using stack = new AsyncDisposableStack()
    stack.defer(await this.#takeTurn())
    const { signal } = exchange
    const prepared = await this.#named(signal, () => prepare(this.#options, stack, signal))
    const held = stack.move()
    return {
      payload: prepared.payload,
      respond: async (challenge) => {
        const asked = readChallenge(challenge)
        const answer = await this.#named(signal, () =>
          respond(this.#options, prepared, { exchange, asked }),
        )
        this.#status = { state: 'ok', detail: '' }
        return answer
      },
      [Symbol.asyncDispose]: () => this.#named(signal, () => held.disposeAsync()),
    }
  }

  /** Waits until no other attestation uses the TPM; what it returns lets the next one in. */
  async #takeTurn(): Promise<() => void> {
    const before = this.#turn
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#turn = promise
    await before
    return resolve
  }

  /** Runs what uses the device. Its failures get a name and are remembered; being aborted is none. */
  async #named<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    try {
      return await work()
    } catch (error) {
      if (signal.aborted && error === signal.reason) throw error
      const failure = describeFailure(error)
      this.#status = { state: 'failed', detail: failure.message }
      this.#options.log.warn({ error: failure, reason: failure.reason }, 'the TPM did not attest')
      throw failure
    }
  }
}

interface Prepared {
  readonly tpm: Tpm
  readonly endorsement: EndorsementOptions
  readonly endorsementKey: LoadedEndorsementKey
  readonly attestationKey: LoadedKey
  readonly payload: Uint8Array
}

/** Opens the TPM, loads both keys and describes them; `stack` frees them again. */
async function prepare(
  options: TpmNodeAttestorOptions,
  stack: AsyncDisposableStack,
  signal: AbortSignal,
): Promise<Prepared> {
  signal.throwIfAborted()
  const tpm = stack.use(await Tpm.open(options.tcti, options))
  const endorsement = {
    profile: options.endorsementKey,
    hierarchyPassword: options.endorsementPassword ?? new Uint8Array(0),
  }
  await flushLeftovers(tpm)
  const endorsementKey = await loadEndorsementKey(tpm, endorsement)
  stack.use(endorsementKey.key)
  signal.throwIfAborted()
  const attestationKey = stack.use(await createAttestationKey(tpm, endorsement))
  const payload = encodeEvidence({
    endorsementKey: writePublicArea(endorsementKey.key.area),
    attestationKey: writePublicArea(attestationKey.area),
    certificates: endorsementKey.certificates,
    claims: await readClaims(tpm),
  })
  return { tpm, endorsement, endorsementKey, attestationKey, payload }
}

/** Takes the secret out of the credential and quotes, both for this exchange alone. */
async function respond(
  { trustDomain }: TpmNodeAttestorOptions,
  prepared: Prepared,
  { exchange, asked }: { exchange: AttestationExchange; asked: TpmChallenge },
): Promise<Uint8Array> {
  const { tpm, endorsement, endorsementKey, attestationKey } = prepared
  const { credential, nonce, selection } = asked
  exchange.signal.throwIfAborted()
  const session = await startEndorsementSession(tpm, endorsementKey, endorsement)
  const keys = { attestationKey, endorsementKey: endorsementKey.key }
  const secret = await activate(
    () => activateCredential(tpm, keys, session, credential),
    () => tpm.release(session.handle),
  )
  exchange.signal.throwIfAborted()
  const qualifyingData = transcript({
    trustDomain,
    nonce,
    csrPublicKey: exchange.csrPublicKey,
    endorsementKey: subjectPublicKeyInfo(endorsementKey.key.area),
    attestationKeyName: attestationKey.name,
    exported: exchange.tlsExporter(exporter.label, exporter.bytes),
  })
  const quote = await quotePcrs(tpm, attestationKey, { qualifyingData, selection })
  return encodeAnswer({ proof: proofOf(secret, qualifyingData), quote })
}

/** A session ends with the command it authorizes only when that succeeds. */
async function activate<T>(work: () => Promise<T>, release: () => Promise<void>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    await release()
    throw error
  }
}

function readChallenge(bytes: Uint8Array): TpmChallenge {
  try {
    return parseChallenge(bytes)
  } catch (cause) {
    throw unreadableChallenge(cause)
  }
}

function unreadableChallenge(cause: unknown): AssayError {
  return new AssayError('internal', `cannot read the server's challenge: ${messageOf(cause)}`, {
    reason: 'attestation-challenge-malformed',
    cause,
  })
}
