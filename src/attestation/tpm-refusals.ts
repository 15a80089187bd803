import { AssayError } from '#base/errors.ts'
import type { EvidenceRefusal } from '#tpm/verify/refusal.ts'

/** Every reason for which a TPM attestation is refused. */
export type TpmRefusal =
  | EvidenceRefusal
  | 'attestation-malformed'
  | 'attestation-answer-malformed'
  | 'attestation-without-tls'
  | 'attestation-expired'
  | 'attestation-proof'
  | 'endorsement-certificate-missing'
  | 'endorsement-key-pending'
  | 'endorsement-key-denied'
  | 'endorsement-key-banned'
  | 'firmware-claim'
  | 'firmware-rolled-back'
  | 'clock-reset-count-fell'
  | 'clock-restart-count-fell'
  | 'clock-fell'

/** A refusal in an operator's words. */
export interface RefusalExplanation {
  readonly meaning: string
  readonly remedy: string
}

const tampered =
  'Treat it as an attack: a working agent never sends this. Look at the node and its network.'
const oldAgent = `Run an agent of a release that fits the server. ${tampered}`
const notATpm =
  'A real TPM with a working agent never shows this: the evidence was forged, or the agent is not ours.'
const installAnchor =
  'Install the maker’s root and intermediates in `endorsement_ca`, from the maker’s site and with their fingerprints checked.'
const makersMistake =
  'If the TPM is genuine its maker issued a faulty certificate: allow the node by `assay inventory approve <hash>` on a server without `endorsement_ca`, and tell us the model.'

/** What each reason means and what to do, as `assay refusal list --server` and docs/tpm-attestation.md show it. */
export const tpmRefusals: Readonly<Record<TpmRefusal, RefusalExplanation>> = {
  'attestation-malformed': {
    meaning: 'The first message cannot be read: cut short, too long, or of another version.',
    remedy: oldAgent,
  },
  'attestation-answer-malformed': {
    meaning: 'The answer to the challenge cannot be read.',
    remedy: oldAgent,
  },
  'attestation-without-tls': {
    meaning: 'There is no TLS connection to bind the evidence to.',
    remedy: 'Agents attest at the server’s TCP port only.',
  },
  'attestation-expired': {
    meaning: 'The answer did not come within 60 seconds.',
    remedy:
      'Run `assay tpm doctor` on the node: the TPM is busy or very slow. The agent tries again by itself.',
  },
  'attestation-proof': {
    meaning:
      'The proof is not over this exchange with the activated secret: the attestation key is not in the TPM of the endorsement key, or the answer was made for another connection, certificate request or challenge.',
    remedy: `Look for a proxy that ends TLS between agent and server. ${tampered}`,
  },
  'endorsement-key-malformed': {
    meaning: 'The endorsement key’s public area cannot be read.',
    remedy: oldAgent,
  },
  'endorsement-key-template': {
    meaning: 'The endorsement key is not one of the TCG’s profiles L-1, L-2, H-1, H-2, H-3.',
    remedy: 'See `assay tpm show` on the node. Other profiles are not supported.',
  },
  'endorsement-key-invalid': {
    meaning: 'The endorsement key is no key: an even or short modulus, or a point off its curve.',
    remedy: notATpm,
  },
  'endorsement-key-roca': {
    meaning:
      'The endorsement key was made by Infineon’s flawed generator (CVE-2017-15361): anyone can compute it.',
    remedy:
      'Update the TPM’s firmware and clear it, or use its ECC endorsement key, or replace it.',
  },
  'endorsement-key-pending': {
    meaning: 'No operator has allowed this endorsement key yet; it is recorded as pending.',
    remedy:
      'Compare the hash with `assay tpm fingerprint` on the node, then `assay inventory approve <hash>`.',
  },
  'endorsement-key-denied': {
    meaning: 'An operator has denied this endorsement key.',
    remedy: 'If that was a mistake: `assay inventory approve <hash>`.',
  },
  'endorsement-key-banned': {
    meaning: 'An operator has banned this node.',
    remedy: 'If it may come back: `assay inventory approve <hash>`.',
  },
  'endorsement-certificate-missing': {
    meaning:
      'The TPM shows no endorsement certificate, and the server lets nodes in by certificate alone.',
    remedy: 'Set `allow: inventory` and approve the node by its hash.',
  },
  'endorsement-certificate-malformed': {
    meaning: 'The endorsement certificate cannot be read, even leniently.',
    remedy: makersMistake,
  },
  'endorsement-certificate-version': {
    meaning: 'The endorsement certificate is not X.509 version 3.',
    remedy: makersMistake,
  },
  'endorsement-certificate-other-key': {
    meaning: 'The endorsement certificate is for another key than the one the TPM uses.',
    remedy: `The TPM’s seed was changed since it was made, or the certificate is someone else’s. ${tampered}`,
  },
  'endorsement-certificate-is-ca': {
    meaning: 'The endorsement certificate is a CA certificate.',
    remedy: notATpm,
  },
  'endorsement-certificate-key-usage': {
    meaning: 'The endorsement certificate is not for encryption (RSA) or key agreement (ECC).',
    remedy: makersMistake,
  },
  'endorsement-certificate-extended-key-usage': {
    meaning: 'The certificate has an extended key usage, and it is not that of endorsement keys.',
    remedy: `It is some other certificate of the maker. ${tampered}`,
  },
  'endorsement-certificate-critical-extension': {
    meaning: 'The endorsement certificate has a critical extension that is not understood.',
    remedy: makersMistake,
  },
  'endorsement-certificate-names-no-tpm': {
    meaning: 'The certificate does not say manufacturer, model and version of a TPM.',
    remedy: `It is some other certificate of the maker. ${tampered}`,
  },
  'endorsement-certificate-not-yet-valid': {
    meaning: 'The endorsement certificate is not valid yet.',
    remedy: 'Check the server’s clock.',
  },
  'endorsement-certificate-expired': {
    meaning: 'The endorsement certificate has expired.',
    remedy:
      'The chip works on: approve the node by its hash (`assay inventory approve <hash>`), which pins the key.',
  },
  'endorsement-certificate-quirk': {
    meaning:
      'The certificate breaks a rule in a way that is known of makers but not tolerated here.',
    remedy:
      'If the maker is known for it, add the quirk the message names to `node_attestors.tpm.tolerate`.',
  },
  'endorsement-issuer-unknown': {
    meaning: 'No installed authority issued the certificate or the intermediates the node sent.',
    remedy: installAnchor,
  },
  'endorsement-issuer-signature': {
    meaning: 'A certificate names an installed authority but is not signed by it.',
    remedy: `${installAnchor} If it is installed: ${tampered}`,
  },
  'endorsement-issuer-not-ca': {
    meaning: 'An issuer in the chain is not a CA that may sign certificates.',
    remedy: tampered,
  },
  'endorsement-issuer-path-length': {
    meaning: 'A CA in the chain has more CAs below it than it allows.',
    remedy: tampered,
  },
  'endorsement-issuer-critical-extension': {
    meaning: 'A CA in the chain has a critical extension that is not understood.',
    remedy: makersMistake,
  },
  'endorsement-issuer-validity': {
    meaning: 'A CA in the chain is not valid now.',
    remedy:
      'Install a newer certificate of that CA, or approve the node by its hash, which pins the key.',
  },
  'attestation-key-malformed': {
    meaning: 'The attestation key’s public area cannot be read.',
    remedy: oldAgent,
  },
  'attestation-key-type': { meaning: 'The attestation key is not on P-256.', remedy: oldAgent },
  'attestation-key-name-algorithm': {
    meaning: 'The attestation key is not named by SHA-256.',
    remedy: oldAgent,
  },
  'attestation-key-attributes': {
    meaning:
      'The attestation key’s attributes are not the agreed ones: it might sign what no TPM made, or leave the TPM.',
    remedy: notATpm,
  },
  'attestation-key-policy': { meaning: 'The attestation key has a policy.', remedy: notATpm },
  'attestation-key-scheme': {
    meaning: 'The attestation key is not bound to ECDSA with SHA-256.',
    remedy: notATpm,
  },
  'attestation-key-invalid': {
    meaning: 'The attestation key is no key: its point is not on the curve.',
    remedy: notATpm,
  },
  'quote-signature-malformed': {
    meaning: 'The quote’s signature cannot be read.',
    remedy: oldAgent,
  },
  'quote-signature-algorithm': {
    meaning: 'The quote is not signed by ECDSA with SHA-256.',
    remedy: notATpm,
  },
  'quote-signature-range': {
    meaning: 'The quote’s signature has a number that is zero or too large.',
    remedy: notATpm,
  },
  'quote-signature-invalid': {
    meaning: 'The quote is not signed by the attestation key.',
    remedy: tampered,
  },
  'quote-malformed': { meaning: 'The quote cannot be read.', remedy: oldAgent },
  'quote-magic': { meaning: 'The signed structure was not made by a TPM.', remedy: notATpm },
  'quote-type': { meaning: 'The signed structure is not a quote.', remedy: tampered },
  'quote-qualified-signer': {
    meaning: 'The signing key is not a primary key of the endorsement hierarchy.',
    remedy: notATpm,
  },
  'quote-qualifying-data': {
    meaning: 'The quote was made for another exchange, certificate request or connection.',
    remedy: tampered,
  },
  'quote-pcr-banks': { meaning: 'The quote is over no PCR bank, or several.', remedy: tampered },
  'quote-pcr-selection': {
    meaning: 'The quote is over other registers than the server asked for.',
    remedy: `Is the SHA-256 PCR bank active? See \`assay tpm show\`. Otherwise: ${tampered}`,
  },
  'quote-pcr-count': {
    meaning: 'There are more or fewer PCR values than registers.',
    remedy: tampered,
  },
  'quote-pcr-size': { meaning: 'A PCR value has the wrong length.', remedy: tampered },
  'quote-pcr-digest': {
    meaning: 'The PCR values presented are not those quoted.',
    remedy: `A register changed while it was quoted, and the agent tries again. If it stays: ${tampered}`,
  },
  'firmware-claim': {
    meaning: 'The TPM’s firmware is another one, by its signed quote, than the node says.',
    remedy: tampered,
  },
  'firmware-rolled-back': {
    meaning: 'The TPM’s firmware is older than at the last attestation.',
    remedy:
      'If the downgrade was meant: `assay inventory approve <hash>` makes the server forget the old version.',
  },
  'clock-reset-count-fell': {
    meaning:
      'The TPM counts fewer resets than at the last attestation: it was cleared, or its state was put back (an emulator’s snapshot).',
    remedy:
      'If the TPM was cleared on purpose: `assay inventory approve <hash>` makes the server forget its clock.',
  },
  'clock-restart-count-fell': {
    meaning:
      'The TPM counts fewer restarts than at the last attestation, without a reset in between.',
    remedy: `A TPM’s state was put back. ${tampered}`,
  },
  'clock-fell': {
    meaning: 'The TPM’s clock is behind the last attestation’s, without a reset in between.',
    remedy: `Two attestations of one node crossed, which mends itself, or a TPM’s state was put back. If it stays: ${tampered}`,
  },
}

/** The error of a refusal; see `tpm/verify/refusal.ts`, whose rules it shares. */
export function refusal(reason: TpmRefusal, message: string, options?: ErrorOptions): AssayError {
  const code = reason.endsWith('-malformed') ? 'invalid-argument' : 'permission-denied'
  return new AssayError(code, message, { ...options, reason })
}
