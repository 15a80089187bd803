import { base64Url, utf8Bytes } from '#base/bytes.ts'
import { AssayError, messageOf } from '#base/errors.ts'
import type { Random } from '#base/random.ts'
import { draftCaCertificate, withSerialNumber } from '#issuance/ca-certificate.ts'
import { agentProfile, serverProfile } from '#issuance/profile.ts'
import { newSerialNumbers, serialNumberText } from '#issuance/serial-numbers.ts'
import { backdateSeconds } from '#issuance/template.ts'
import { verifyIssued } from '#issuance/verify-issued.ts'
import { type Certificate, parseCertificate } from '#pki/certificate.ts'
import { checkIssuers } from '#pki/chain.ts'
import { compactJws, type JwsAlgorithm, maxTokenCharacters } from '#pki/jws.ts'
import { attributeType, encodeName, type NameAttribute } from '#pki/name.ts'
import { parseMlDsaPublicKey } from '#pq-crypto/ml-dsa.ts'
import { type MlDsaJwsAlgorithm, mlDsaJwsAlgorithm } from '#pq-crypto/ml-dsa-jose.ts'
import { encodeJwtSvid } from '#spiffe/jwt-svid.ts'
import { type SpiffeId, serverId, spiffeId } from '#spiffe/spiffe-id.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import type { KeyType, SigningKey } from '../plugin/key-manager/key-manager.ts'
import type {
  CertificateAuthority,
  DownstreamCaRequest,
  IssuedDownstreamCa,
  IssuedJwtSvid,
  IssuedX509Svid,
  JwtSvidRequest,
  X509SvidRequest,
} from './certificate-authority.ts'
import type { IssueTime } from './issue-time.ts'
import { permitDownstreamCa, permitJwtSvid, permitX509Svid, type X509Permit } from './permit.ts'
import { type JwtSigner, signForX509, withAlternative, type X509Signer } from './signer.ts'

/** Where an {@link Issuer} gets what it signs with: the authorities that are active now. */
export interface ActiveSigners {
  /** @throws AssayError `unavailable` at once when there is none or its key cannot be used. */
  x509(): X509Signer
  /** @throws AssayError `unavailable` at once when there is none or its key cannot be used. */
  jwt(): JwtSigner
}

/** What is issued when a request leaves it open. */
export interface SvidDefaults {
  readonly x509SvidTtlSeconds: number
  /** For SVIDs of agents. */
  readonly agentSvidTtlSeconds: number
  readonly jwtSvidTtlSeconds: number
  /** The `iss` of every JWT-SVID; undefined: they have none. */
  readonly jwtIssuer: string | undefined
}

/** What CAs below the active authority have in common. */
export interface DownstreamCaDefaults {
  /** When a request leaves it open. */
  readonly ttlSeconds: number
  /** To which their place and serial number are added. */
  readonly subject: readonly NameAttribute[]
}

/** Makes SVIDs with the active authorities, and reads each X.509-SVID back before it is released. */
export class Issuer implements CertificateAuthority {
  readonly #trustDomain: TrustDomain
  readonly #signers: ActiveSigners
  readonly #time: IssueTime
  readonly #random: Random
  readonly #defaults: SvidDefaults
  readonly #ca: DownstreamCaDefaults
  readonly #newSerialNumber: () => Uint8Array
  readonly #onSign: (keyId: string, validUntilSeconds: number) => Disposable

  constructor(deps: {
    readonly trustDomain: TrustDomain
    readonly signers: ActiveSigners
    readonly time: IssueTime
    readonly random: Random
    readonly defaults: SvidDefaults
    readonly ca: DownstreamCaDefaults
    /**
     * Told before each signature until when (Unix time) what is signed is valid; what it returns is disposed of once
     * that is signed. It must not throw.
     */
    readonly onSign: (keyId: string, validUntilSeconds: number) => Disposable
  }) {
    this.#trustDomain = deps.trustDomain
    this.#signers = deps.signers
    this.#time = deps.time
    this.#random = deps.random
    this.#defaults = deps.defaults
    this.#ca = deps.ca
    this.#newSerialNumber = newSerialNumbers(deps.random)
    this.#onSign = deps.onSign
  }

  /** Refuses the server's own ID, which only {@link issueServerX509Svid} issues. */
  async issueX509Svid(request: X509SvidRequest): Promise<IssuedX509Svid> {
    const permit = permitX509Svid(this.#trustDomain, request)
    if (permit.profile === serverProfile) {
      throw new AssayError(
        'invalid-argument',
        `cannot issue an X.509-SVID for ${request.spiffeId}: the server makes its own`,
        { reason: 'svid-request-not-allowed' },
      )
    }
    return this.#issueX509(permit)
  }

  /** The server's own SVID, for a key this process has just made. The lifetime is that of workloads' SVIDs. */
  async issueServerX509Svid(publicKey: Uint8Array): Promise<IssuedX509Svid> {
    const spiffeId = serverId(this.#trustDomain)
    return this.#issueX509(
      permitX509Svid(this.#trustDomain, { spiffeId, publicKey, ttlSeconds: 0 }),
    )
  }

  async #issueX509(permit: X509Permit): Promise<IssuedX509Svid> {
    const signer = this.#signers.x509()
    const { certificate: authority, key, templates, alternative } = signer
    const template = templates.get(permit.profile)
    if (template === undefined) throw new TypeError(`no template of kind ${permit.profile.name}`)
    const fields = this.#fieldsOf(permit, authority)
    using _signing = this.#onSign(key.id, fields.notAfterSeconds)
    const toBeSigned = await withAlternative(template.toBeSigned(fields), alternative)
    const certificate = template.certificate(toBeSigned, await signForX509(key, toBeSigned))
    verifyIssued(certificate, {
      profile: permit.profile,
      fields,
      issuerName: authority.subject,
      authorityKeyId: authority.subjectKeyId,
      alternative: alternative && { signedWith: alternative.parameterSet, publicKey: undefined },
    })
    if (signer.constrainedBy.length > 0) checkConstraints(certificate, signer.constrainedBy)
    return {
      spiffeId: permit.spiffeId,
      certificates: [certificate, ...signer.chain],
      serialNumber: serialNumberText(fields.serialNumber),
      expiresAtSeconds: fields.notAfterSeconds,
      authorityId: signer.rootId,
    }
  }

  #fieldsOf(permit: X509Permit, authority: { readonly notAfterSeconds: number }) {
    const now = this.#time.now()
    const ttlSeconds =
      permit.ttlSeconds ||
      (permit.profile === agentProfile
        ? this.#defaults.agentSvidTtlSeconds
        : this.#defaults.x509SvidTtlSeconds)
    return {
      serialNumber: this.#newSerialNumber(),
      notBeforeSeconds: now - backdateSeconds,
      notAfterSeconds: cappedEnd(now, ttlSeconds, authority.notAfterSeconds),
      spiffeId: permit.spiffeId,
      dnsNames: permit.dnsNames,
      publicKey: permit.publicKey,
    }
  }

  async issueDownstreamCa(request: DownstreamCaRequest): Promise<IssuedDownstreamCa> {
    const permit = permitDownstreamCa(this.#trustDomain, request)
    const { certificate: authority, key, chain, path, rootId } = this.#signers.x509()
    const now = this.#time.now()
    const { ttlSeconds, subject } = this.#ca
    const serialNumber = this.#newSerialNumber()
    const unit = {
      type: attributeType.organizationalUnit,
      value: `DOWNSTREAM-${chain.length + 1}`,
    }
    const draft = draftCaCertificate(
      {
        trustDomain: this.#trustDomain,
        subject: withSerialNumber([...subject, unit], serialNumber),
        serialNumber,
        notBeforeSeconds: now - backdateSeconds,
        notAfterSeconds: cappedEnd(now, permit.ttlSeconds || ttlSeconds, authority.notAfterSeconds),
        publicKey: permit.publicKey,
      },
      authority,
    )
    checkRoomBelow(draft.unsigned, { path, trustDomain: this.#trustDomain })
    const { notAfterSeconds } = draft.unsigned
    using _signing = this.#onSign(key.id, notAfterSeconds)
    const { raw } = draft.finish(await signForX509(key, draft.toBeSigned))
    return {
      certificates: [raw, ...chain],
      serialNumber: serialNumberText(serialNumber),
      expiresAtSeconds: notAfterSeconds,
      authorityId: rootId,
    }
  }

  async issuePqX509Svid(request: X509SvidRequest): Promise<IssuedX509Svid> {
    const permit = permitX509Svid(this.#trustDomain, request, parseMlDsaPublicKey)
    const { pq, key, rootId } = this.#signers.x509()
    if (pq === undefined) throw noPqAuthority(request.spiffeId)
    const { certificate: authority, template } = pq
    if (permit.profile.name !== 'workload') {
      throw new AssayError(
        'invalid-argument',
        `cannot issue a post-quantum X.509-SVID for ${permit.spiffeId}: it is not a workload's ID`,
        { reason: 'svid-request-not-allowed' },
      )
    }
    const fields = this.#fieldsOf(permit, authority)
    using _signing = this.#onSign(key.id, fields.notAfterSeconds)
    const toBeSigned = template.toBeSigned(fields)
    const certificate = template.certificate(toBeSigned, await pq.key.sign(toBeSigned))
    verifyIssued(certificate, {
      profile: template.profile,
      fields,
      issuerName: authority.subject,
      authorityKeyId: authority.subjectKeyId,
    })
    return {
      spiffeId: permit.spiffeId,
      certificates: [certificate],
      serialNumber: serialNumberText(fields.serialNumber),
      expiresAtSeconds: fields.notAfterSeconds,
      authorityId: rootId,
    }
  }

  async issueJwtSvid(request: JwtSvidRequest): Promise<IssuedJwtSvid> {
    const { key, keyId } = this.#signers.jwt()
    return await this.#issueJwt(request, { key, keyId, alg: jwsAlgorithm[key.type] })
  }

  async issuePqJwtSvid(request: JwtSvidRequest): Promise<IssuedJwtSvid> {
    const { pq } = this.#signers.jwt()
    if (pq === undefined) throw noPqAuthority(request.spiffeId)
    return await this.#issueJwt(request, { ...pq, alg: mlDsaJwsAlgorithm[pq.key.parameterSet] })
  }

  async #issueJwt(
    request: JwtSvidRequest,
    by: {
      readonly key: Pick<SigningKey, 'sign'>
      readonly keyId: string
      readonly alg: JwsAlgorithm | MlDsaJwsAlgorithm
    },
  ): Promise<IssuedJwtSvid> {
    const permit = permitJwtSvid(this.#trustDomain, request)
    const signer = this.#signers.jwt()
    const issuedAtSeconds = this.#time.now()
    const expiresAtSeconds = cappedEnd(
      issuedAtSeconds,
      permit.ttlSeconds || this.#defaults.jwtSvidTtlSeconds,
      signer.expiresAtSeconds,
    )
    const { jwtIssuer } = this.#defaults
    const input = encodeJwtSvid({
      keyId: by.keyId,
      alg: by.alg,
      subject: permit.spiffeId,
      audience: permit.audience,
      issuedAtSeconds,
      expiresAtSeconds,
      ...(jwtIssuer === undefined ? {} : { issuer: jwtIssuer }),
      ...(permit.includeJti ? { jti: base64Url(this.#random.bytes(jtiBytes)) } : {}),
    })
    const room = by.key === signer.key ? signatureCharacters : pqSignatureCharacters
    if (input.length > maxTokenCharacters - room) {
      throw new AssayError(
        'invalid-argument',
        `cannot issue a JWT-SVID for ${permit.spiffeId}: with these audiences it is longer than ${maxTokenCharacters} characters`,
        { reason: 'svid-request-not-allowed' },
      )
    }
    using _signing = this.#onSign(signer.key.id, expiresAtSeconds)
    const signature = await by.key.sign(utf8Bytes(input))
    return {
      spiffeId: permit.spiffeId,
      token: compactJws(input, signature),
      issuedAtSeconds,
      expiresAtSeconds,
    }
  }
}

const noPqAuthority = (spiffeId: SpiffeId): AssayError =>
  new AssayError(
    'failed-precondition',
    `cannot issue a post-quantum SVID for ${spiffeId}: the authority has no ML-DSA key; pq_signatures: hybrid in server.yaml gives it one`,
    { reason: 'no-pq-authority' },
  )

/** JWS algorithms (RFC 7518 §3.1) of what keys sign with. */
const jwsAlgorithm: Readonly<Record<KeyType, JwsAlgorithm>> = {
  'ec-p256': 'ES256',
  'ec-p384': 'ES384',
  'rsa-2048': 'RS256',
  'rsa-3072': 'RS256',
  'rsa-4096': 'RS256',
}

/** Room for the longest classical signature, 512 bytes of RSA-4096, and for one of ML-DSA-87, 4627 bytes; in base64url. */
const signatureCharacters = 700
const pqSignatureCharacters = 6200

const jtiBytes = 16

/** @throws AssayError `invalid-argument` when a CA above allows none of these names, so that nobody would accept it. */
function checkConstraints(der: Uint8Array, issuers: readonly Certificate[]): void {
  try {
    checkIssuers([parseCertificate(der), ...issuers])
  } catch (cause) {
    throw new AssayError('invalid-argument', `cannot issue an X.509-SVID: ${messageOf(cause)}`, {
      reason: 'svid-request-not-allowed',
      cause,
    })
  }
}

/**
 * Whether what `ca` will sign can be verified up to the root, as far as those on the path to it can object: path lengths
 * and name constraints.
 */
function checkRoomBelow(
  ca: Certificate,
  {
    path,
    trustDomain,
  }: { readonly path: readonly Certificate[]; readonly trustDomain: TrustDomain },
): void {
  const leaf: Certificate = {
    ...ca,
    issuer: ca.subject,
    subject: encodeName([{ type: attributeType.commonName, value: 'workload' }]),
    uris: [spiffeId(trustDomain, '/workload')],
    basicConstraints: undefined,
  }
  try {
    checkIssuers([leaf, ca, ...path])
  } catch (cause) {
    throw new AssayError(
      'failed-precondition',
      `cannot issue a CA for a downstream server: what it signs would not be accepted: ${messageOf(cause)}`,
      { reason: 'no-room-below', cause },
    )
  }
}

/** @throws AssayError `unavailable` when the authority is at its end. */
function cappedEnd(nowSeconds: number, ttlSeconds: number, authorityEndSeconds: number): number {
  if (authorityEndSeconds <= nowSeconds) {
    throw new AssayError('unavailable', 'cannot issue: the authority has expired', {
      reason: 'authority-expired',
    })
  }
  return Math.min(nowSeconds + ttlSeconds, authorityEndSeconds)
}
