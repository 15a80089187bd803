import { AssayError } from '#base/errors.ts'
import type { Log } from '#base/log.ts'
import { parseCertificate, subjectKeyId } from '#pki/certificate.ts'
import { describePublicKey } from '#pki/public-key.ts'
import { parseMlDsaPublicKey } from '#pq-crypto/ml-dsa.ts'
import type { ReportRequest, Update as WireUpdate } from '#rpc/gen/assay/server/v1/feed.ts'
import type { PqAuthorities } from '#rpc/gen/assay/server/v1/post_quantum.ts'
import type { Bundle as WireBundle } from '#rpc/gen/spire/api/types/bundle.ts'
import type { Entry } from '#rpc/gen/spire/api/types/entry.ts'
import type { SPIFFEID } from '#rpc/gen/spire/api/types/spiffeid.ts'
import type { Bundle } from '#spiffe/bundle.ts'
import { selector, selectorSet } from '#spiffe/selector.ts'
import { type SpiffeId, spiffeId } from '#spiffe/spiffe-id.ts'
import { parseTrustDomain, type TrustDomain } from '#spiffe/trust-domain.ts'
import type { AgentEntry } from '../manager/agent-entry.ts'
import type { Holdings } from '../manager/holdings.ts'
import type { Update } from '../manager/update.ts'

/** Longer than this nothing that a tainted authority signed is used, whatever the server says. */
const maxSpreadSeconds = 3600

/** @throws SyntaxError when it is absent or not well-formed. */
function spiffeIdFrom(message: SPIFFEID | undefined): SpiffeId {
  if (message === undefined) throw new SyntaxError('a SPIFFE ID is missing')
  return spiffeId(parseTrustDomain(message.trustDomain), message.path)
}

/** @throws SyntaxError when it lacks an id, a SPIFFE ID or selectors, or one of them is not well-formed. */
function entryFrom(message: Entry): AgentEntry {
  if (message.id === '') throw new SyntaxError('an entry has no id')
  if (message.selectors.length === 0) throw new SyntaxError('an entry has no selectors')
  const { disableX509SvidPrefetch = false, jwtSvidIncludeJti = false } =
    message.additionalAttributes ?? {}
  return {
    id: message.id,
    spiffeId: spiffeIdFrom(message.spiffeId),
    selectors: selectorSet(message.selectors.map(({ type, value }) => selector(type, value))),
    federatesWith: message.federatesWith.map(parseTrustDomain),
    admin: message.admin,
    downstream: message.downstream,
    storeSvid: message.storeSvid,
    hint: message.hint,
    revisionNumber: message.revisionNumber,
    createdAtSeconds: message.createdAt,
    disableX509SvidPrefetch,
    jwtSvidIncludeJti,
  }
}

/** The entries that can be read. One that cannot is logged and passed over: it must not take the others with it. */
export function entriesFrom(messages: readonly Entry[], log: Log): AgentEntry[] {
  return messages.flatMap((message) => {
    try {
      return [entryFrom(message)]
    } catch (error) {
      log.warn({ entryId: message.id, error }, 'an entry cannot be read and is passed over')
      return []
    }
  })
}

/**
 * A bundle without the authorities that cannot be read, which are logged.
 *
 * @throws SyntaxError when the trust domain is not well-formed.
 */
export function bundleFrom(message: WireBundle, log: Log): Bundle {
  const trustDomain = parseTrustDomain(message.trustDomain)
  const isReadable = (parse: () => unknown): boolean => {
    try {
      parse()
      return true
    } catch (error) {
      log.warn({ trustDomain, error }, 'an authority cannot be read and is passed over')
      return false
    }
  }
  return {
    trustDomain,
    x509Authorities: message.x509Authorities
      .filter(({ asn1 }) => isReadable(() => parseCertificate(asn1)))
      .map(({ asn1, tainted }) => ({ certificate: owned(asn1), tainted })),
    jwtAuthorities: message.jwtAuthorities
      .filter(({ publicKey }) => isReadable(() => knownKey(publicKey)))
      .map(({ keyId, publicKey, expiresAt, tainted }) => ({
        keyId,
        publicKey: owned(publicKey),
        expiresAtSeconds: expiresAt,
        tainted,
      })),
    refreshHintSeconds: message.refreshHint,
    sequenceNumber: message.sequenceNumber,
  }
}

/**
 * A bundle with the post-quantum keys beside its authorities. One that cannot be read is logged and left out, as is one
 * beside an authority that the bundle does not have.
 */
export function withPq(bundle: Bundle, pq: PqAuthorities | undefined, log: Log): Bundle {
  if (pq === undefined || (pq.x509.length === 0 && pq.jwt.length === 0)) return bundle
  const { trustDomain } = bundle
  const isReadable = (publicKeyOf: () => Uint8Array): boolean => {
    try {
      parseMlDsaPublicKey(publicKeyOf())
      return true
    } catch (error) {
      log.warn({ trustDomain, error }, 'a post-quantum authority cannot be read and is passed over')
      return false
    }
  }
  const certificates = new Map(
    pq.x509
      .filter(({ certificate: der }) => isReadable(() => parseCertificate(der).publicKey))
      .map(({ authorityId, certificate }) => [authorityId, owned(certificate)]),
  )
  const keys = new Map(
    pq.jwt
      .filter(({ keyId, publicKey }) => keyId !== '' && isReadable(() => publicKey))
      .map(({ authorityId, keyId, publicKey }) => [
        authorityId,
        { keyId, publicKey: owned(publicKey) },
      ]),
  )
  return {
    ...bundle,
    x509Authorities: bundle.x509Authorities.map((authority) => {
      const { subjectKeyId: named, publicKey } = parseCertificate(authority.certificate)
      const found = certificates.get((named ?? subjectKeyId(publicKey)).toHex())
      return found === undefined ? authority : { ...authority, pq: found }
    }),
    jwtAuthorities: bundle.jwtAuthorities.map((authority) => {
      const found = keys.get(authority.keyId)
      return found === undefined ? authority : { ...authority, pq: found }
    }),
  }
}

/** @throws AssayError `internal` when a complete update lacks the bundle of `trustDomain`. */
export function updateFrom(message: WireUpdate, trustDomain: TrustDomain, log: Log): Update {
  const bundle = message.bundle && withPq(bundleFrom(message.bundle, log), message.pq, log)
  if (bundle === undefined ? message.complete : bundle.trustDomain !== trustDomain) {
    throw new AssayError('internal', `the server sent no bundle of trust domain ${trustDomain}`)
  }
  return {
    source: 'feed',
    revision: message.revision,
    complete: message.complete,
    entries: entriesFrom(message.entries, log),
    removedEntryIds: message.removedEntryIds,
    bundle,
    federatedBundles: message.federatedBundles.map((each) => bundleFrom(each, log)),
    removedFederated: message.removedFederatedTrustDomains.map(parseTrustDomain),
    serverTimeMs: message.serverTimeMs === 0 ? undefined : message.serverTimeMs,
    replacementSpreadSeconds: Math.min(
      Math.max(message.replacementSpreadSeconds, 0),
      maxSpreadSeconds,
    ),
  }
}

/** An authority that has no id is not named to the server. */
export function reportMessage({
  bundleSequenceNumber,
  authorities,
  firstExpiryMs = 0,
}: Holdings): ReportRequest {
  return {
    bundleSequenceNumber,
    authorities: authorities
      .filter(({ authorityId }) => authorityId !== '')
      .map(({ authorityId, svids, expiresAtMs }) => ({
        authorityId,
        svids,
        expiresAt: Math.trunc(expiresAtMs / 1000),
      })),
    firstExpiresAt: Math.trunc(firstExpiryMs / 1000),
  }
}

/** A copy: what is decoded is a view that would keep the whole message, of many megabytes perhaps, in memory. */
export function owned(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(bytes)
}

function knownKey(spki: Uint8Array): void {
  const key = describePublicKey(spki)
  if (key.type === 'other') throw new SyntaxError(`key type ${key.algorithm} is not known`)
}
