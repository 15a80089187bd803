import { createPrivateKey, createPublicKey, type KeyObject, sign } from 'node:crypto'
import { equalBytes, utf8Text } from '#base/bytes.ts'
import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log.ts'
import { readSecretFile } from '#host/secret-file.ts'
import { describe } from '#pki/certificate.ts'
import { describePublicKey, publicKeyObject } from '#pki/public-key.ts'
import {
  isSignedBy,
  parseSignatureAlgorithm,
  signatureAlgorithmFor,
} from '#pki/signature-algorithm.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import type { UpstreamAuthority, UpstreamCa } from './upstream-authority.ts'
import { loadUpstreamCertificates, type UpstreamFiles, unusable } from './upstream-files.ts'

/** What a server's `upstream_authority: { disk: … }` comes to. */
export interface DiskUpstreamOptions extends UpstreamFiles {
  /** PEM, not encrypted, readable by its owner alone. */
  readonly keyFilePath: string
  readonly trustDomain: TrustDomain
  readonly clock: Clock
  readonly log: Log
}

/** A CA whose key and certificates are in files, which are read again each time. */
export function newDiskUpstream(options: DiskUpstreamOptions): UpstreamAuthority {
  const { certFilePath, keyFilePath, trustDomain, clock, log } = options
  log.warn(
    { path: keyFilePath },
    'the key of the upstream authority is in a file on this disk, not in an HSM',
  )
  return {
    where: `disk ${certFilePath}`,
    async current(): Promise<UpstreamCa> {
      const nowSeconds = Math.floor(clock.now().epochMilliseconds / 1000)
      const certificates = await loadUpstreamCertificates(options, { trustDomain, nowSeconds })
      const [ca] = certificates.path
      const key = await loadKey(keyFilePath)
      const publicKey = new Uint8Array(createPublicKey(key).export({ format: 'der', type: 'spki' }))
      if (!equalBytes(publicKey, ca.publicKey)) {
        throw unusable(keyFilePath, new RangeError(`it is not the key of ${describe(ca)}`))
      }
      return {
        ...certificates,
        sign: async (toBeSigned) => signWith(key, ca.publicKey, toBeSigned),
      }
    },
    async [Symbol.asyncDispose]() {},
  }
}

async function loadKey(path: string): Promise<KeyObject> {
  const pem = await readSecretFile(path)
  try {
    return createPrivateKey(utf8Text(pem))
  } catch {
    // OpenSSL's own error may quote what it met, which may be key material.
    throw unusable(path, new SyntaxError('it is no private key in PEM without a passphrase'))
  } finally {
    pem.fill(0)
  }
}

function signWith(key: KeyObject, publicKey: Uint8Array, message: Uint8Array): Uint8Array {
  const { identifier, hash } = signatureAlgorithmFor(describePublicKey(publicKey))
  const signature = new Uint8Array(sign(hash, message, key))
  const algorithm = parseSignatureAlgorithm(identifier)
  if (isSignedBy(publicKeyObject(publicKey), { algorithm, message, signature })) return signature
  throw new RangeError('cannot sign with the upstream authority: this machine computes wrongly')
}
