import {
  encodeChallenge,
  exporter,
  parseAnswer,
  parseEvidence,
  proofOf,
  type TpmAnswer,
  type TpmEvidence,
  tpmAttestationType,
  transcript,
} from '#attestation/tpm.ts'
import { refusal } from '#attestation/tpm-refusals.ts'
import { equalSecrets } from '#base/bytes.ts'
import type { Clock } from '#base/clock.ts'
import { messageOf } from '#base/errors.ts'
import type { Log } from '#base/log.ts'
import type { Random } from '#base/random.ts'
import { spiffeId } from '#spiffe/spiffe-id.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import { type AttestationKey, verifyAttestationKey } from '#tpm/verify/attestation-key.ts'
import { type CertificateQuirk, certificateQuirks } from '#tpm/verify/certificate-quirks.ts'
import { makeCredential } from '#tpm/verify/credential.ts'
import {
  type EndorsementAuthorities,
  parseEndorsementAuthorities,
} from '#tpm/verify/endorsement-authorities.ts'
import {
  type VerifiedEndorsementCertificate,
  verifyEndorsementCertificate,
} from '#tpm/verify/endorsement-certificate.ts'
import { type EndorsementKey, verifyEndorsementKey } from '#tpm/verify/endorsement-key.ts'
import { type VerifiedQuote, verifyQuote } from '#tpm/verify/quote.ts'
import { type PcrSelection, pcrSelection } from '#tpm/wire/pcr-selection.ts'
import type { AttestationExchange, AttestedNode, NodeAttestor } from './node-attestor.ts'
import { advanceClock, verifyStanding } from './tpm-clock.ts'
import type { TpmInventory, TpmInventoryRecord } from './tpm-inventory.ts'
import { describeClaims, tpmSelectors } from './tpm-selectors.ts'

/** What the server's half of TPM attestation works with. */
export interface TpmNodeAttestorOptions {
  readonly trustDomain: TrustDomain
  /** DER certificates of TPM makers, roots and intermediates, as an operator installed them. */
  readonly endorsementAuthorities: readonly Uint8Array[]
  /**
   * Who may join: `inventory`, the endorsement keys an operator has allowed, whose certificate must chain to an
   * authority where there is one and authorities are installed; `endorsement_ca`, every TPM with a certificate
   * that does, unless it is denied or banned.
   */
  readonly allow: 'inventory' | 'endorsement_ca'
  readonly inventory: TpmInventory
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  /** SHA-256 registers to quote, each of which becomes a selector. Default: 0 to 7, 9 and 14. */
  readonly pcrs?: readonly number[]
  /**
   * Whether certificates must be unexpired always, or only until the endorsement key is in the inventory, which
   * pins it: chips outlive their certificates. Default: `enforce-at-enrolment`.
   */
  readonly expiry?: 'enforce' | 'enforce-at-enrolment'
  /** Default: all that are known. */
  readonly toleratedQuirks?: readonly CertificateQuirk[]
}

/** How long a challenge may be answered; the slowest chips need some ten seconds. */
const challengeLife = Temporal.Duration.from({ seconds: 60 })

const nonceBytes = 32
const secretBytes = 32

/**
 * A node proves that it has a TPM whose endorsement key is trusted, and becomes
 * `/spire/agent/tpm/<SHA-256 of the endorsement key>`. Each step refuses with a reason of its own, explained in
 * `attestation/tpm-refusals.ts`:
 *
 * 1. the endorsement key is one by a TCG profile, its certificate is for it and chains to an authority, and an
 *    operator lets it in;
 * 2. the attestation key can only sign what a TPM made;
 * 3. both are in one TPM: only that could take the secret out of the credential;
 * 4. that TPM answers for this certificate request on this TLS connection: the transcript, in proof and quote;
 * 5. the registers it quotes are those asked for, and become selectors;
 * 6. its clock and firmware have not gone back since the last time.
 *
 * @throws TypeError when `allow` is `endorsement_ca` and no authority is installed.
 * @throws SyntaxError when an authority cannot be read; RangeError for a register a TPM does not have.
 */
export function createTpmNodeAttestor(options: TpmNodeAttestorOptions): NodeAttestor {
  if (options.allow === 'endorsement_ca' && options.endorsementAuthorities.length === 0)
    throw new TypeError('cannot admit TPMs by their maker: no endorsement authority is installed')
  const attestor = {
    ...options,
    authorities: parseEndorsementAuthorities(options.endorsementAuthorities),
    selection: pcrSelection('sha256', options.pcrs ?? [0, 1, 2, 3, 4, 5, 6, 7, 9, 14]),
    quirks: new Set(options.toleratedQuirks ?? certificateQuirks),
  }
  return { type: tpmAttestationType, attest: (exchange) => attest(attestor, exchange) }
}

type Attestor = TpmNodeAttestorOptions & {
  readonly authorities: EndorsementAuthorities
  readonly selection: PcrSelection
  readonly quirks: ReadonlySet<CertificateQuirk>
}

async function attest(attestor: Attestor, exchange: AttestationExchange): Promise<AttestedNode> {
  const { trustDomain, inventory, selection } = attestor
  const evidence = readEvidence(exchange.payload)
  const endorsementKey = verifyEndorsementKey(evidence.endorsementKey)
  const record = await inventory.record(endorsementKey.hash)
  verifyStanding(endorsementKey.hash, record)
  const certificate = verifyCertificate(attestor, { evidence, endorsementKey, record })
  if (attestor.allow === 'inventory' && record?.state !== 'allowed') {
    await inventory.knock(
      endorsementKey.hash,
      exchange.peerAddress,
      describeClaims(evidence.claims),
    )
    throw refusal(
      'endorsement-key-pending',
      `cannot admit TPM ${endorsementKey.hash}: it waits for an operator; run: assay inventory approve ${endorsementKey.hash}`,
    )
  }
  const attestationKey = verifyAttestationKey(evidence.attestationKey)
  const quote = await challenge(attestor, exchange, { endorsementKey, attestationKey })
  if (quote.firmwareVersion !== evidence.claims.firmwareVersion)
    throw refusal(
      'firmware-claim',
      `cannot admit TPM ${endorsementKey.hash}: its quote is by firmware 0x${quote.firmwareVersion.toString(16)}, and it claims 0x${evidence.claims.firmwareVersion.toString(16)}`,
    )
  let nodeName = ''
  await inventory.recordClock(endorsementKey.hash, exchange.peerAddress, (present) => {
    nodeName = present?.nodeName ?? ''
    return advanceClock(endorsementKey.hash, present, quote)
  })
  return {
    agentId: spiffeId(trustDomain, `/spire/agent/${tpmAttestationType}/${endorsementKey.hash}`),
    selectors: tpmSelectors({ hash: endorsementKey.hash, nodeName, certificate, quote, selection }),
    canReattest: true,
    confirm: async () =>
      verifyStanding(endorsementKey.hash, await inventory.record(endorsementKey.hash)),
  }
}

/** The certificate, if it is there and authorities vouch for it; undefined where the inventory alone does. */
function verifyCertificate(
  attestor: Attestor,
  node: {
    readonly evidence: TpmEvidence
    readonly endorsementKey: EndorsementKey
    readonly record: TpmInventoryRecord | undefined
  },
): VerifiedEndorsementCertificate | undefined {
  const { allow, authorities, expiry, clock, quirks, log } = attestor
  const { evidence, endorsementKey, record } = node
  const [first, ...rest] = evidence.certificates
  if (first === undefined) {
    if (allow === 'endorsement_ca')
      throw refusal(
        'endorsement-certificate-missing',
        `cannot admit TPM ${endorsementKey.hash}: it shows no endorsement certificate`,
      )
    return undefined
  }
  const pinned = record?.state === 'allowed' && expiry !== 'enforce'
  const anchored = authorities.anchors.length > 0
  const verified = verifyEndorsementCertificate([first, ...rest], {
    endorsementKey,
    authorities: anchored ? authorities : undefined,
    validAtSeconds: pinned ? undefined : clock.now().epochMilliseconds / 1000,
    toleratedQuirks: quirks,
  })
  if (verified.quirks.length > 0)
    log.warn(
      { endorsementKeyHash: endorsementKey.hash, quirks: verified.quirks },
      'tolerated quirks of an endorsement certificate',
    )
  return anchored ? verified : undefined
}

/** One challenge, which lives in this call alone, so that it can be answered once. */
async function challenge(
  { trustDomain, random, clock, selection }: Attestor,
  exchange: AttestationExchange,
  keys: { readonly endorsementKey: EndorsementKey; readonly attestationKey: AttestationKey },
): Promise<VerifiedQuote> {
  const { endorsementKey, attestationKey } = keys
  const exported = exchange.tlsExporter(exporter.label, exporter.bytes)
  if (exported === undefined)
    throw refusal('attestation-without-tls', 'cannot attest a node that is not connected by TLS')
  const nonce = random.bytes(nonceBytes)
  const secret = random.bytes(secretBytes)
  const credential = makeCredential(endorsementKey.area, attestationKey.name, { secret, random })
  const message = encodeChallenge({ credential, nonce, selection })
  const answer = readAnswer(await answered(exchange, message, clock))
  const qualifyingData = transcript({
    trustDomain,
    nonce,
    csrPublicKey: exchange.csrPublicKey,
    endorsementKey: endorsementKey.subjectPublicKeyInfo,
    attestationKeyName: attestationKey.name,
    exported,
  })
  if (!equalSecrets(answer.proof, proofOf(secret, qualifyingData)))
    throw refusal(
      'attestation-proof',
      `cannot admit TPM ${endorsementKey.hash}: its answer does not prove that it holds both keys, for this request on this connection`,
    )
  return verifyQuote(answer.quote, { attestationKey, qualifyingData, selection })
}

/** The agent's answer, if it comes in time by a clock that cannot be set. */
async function answered(
  exchange: AttestationExchange,
  message: Uint8Array,
  clock: Clock,
): Promise<Uint8Array> {
  const done = new AbortController()
  const signal = AbortSignal.any([exchange.signal, done.signal])
  const late = clock.sleep(challengeLife, signal).then(() => undefined)
  try {
    const answer = await Promise.race([exchange.challenge(message), late])
    if (answer !== undefined) return answer
    throw refusal(
      'attestation-expired',
      'cannot accept the answer: it did not come within 60 seconds of the challenge',
    )
  } finally {
    done.abort()
    await late.catch(() => {}) // it rejects because we aborted it
  }
}

function readEvidence(payload: Uint8Array): TpmEvidence {
  try {
    return parseEvidence(payload)
  } catch (cause) {
    throw refusal('attestation-malformed', `cannot read the evidence: ${messageOf(cause)}`, {
      cause,
    })
  }
}

function readAnswer(bytes: Uint8Array): TpmAnswer {
  try {
    return parseAnswer(bytes)
  } catch (cause) {
    throw refusal('attestation-answer-malformed', `cannot read the answer: ${messageOf(cause)}`, {
      cause,
    })
  }
}
