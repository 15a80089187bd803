import { AssayError } from '#base/errors.ts'
import { parseCertificate } from '#pki/certificate.ts'
import type { IssueTime } from '../ca/issue-time.ts'
import type { ActiveSigners } from '../ca/issuer.ts'
import { type JwtSigner, newX509Signer, type X509Signer } from '../ca/signer.ts'
import type { KeyManager } from '../plugin/key-manager/key-manager.ts'
import type { AuthorityContext } from './authority-context.ts'
import type { AuthorityKindName } from './journal.ts'
import { jwtKeyId } from './jwt-kind.ts'
import type { ActiveAuthority, AuthorityRotator } from './rotator.ts'

interface SignersOf {
  readonly kinds: Readonly<
    Record<
      AuthorityKindName,
      { readonly context: AuthorityContext; readonly rotator: AuthorityRotator }
    >
  >
  readonly keyManager: Pick<KeyManager, 'status' | 'place'>
  readonly time: IssueTime
}

/** What signs now: whatever authority of each kind is active at the time of the call. */
export class AuthoritySigners implements ActiveSigners {
  readonly #of: SignersOf
  /** Put together once for each authority. */
  #x509Signer: { readonly authority: ActiveAuthority; readonly signer: X509Signer } | undefined

  constructor(of: SignersOf) {
    this.#of = of
  }

  x509(): X509Signer {
    const authority = this.#active('x509')
    if (this.#x509Signer?.authority !== authority) {
      const { content, upstream, pq } = authority.issued
      const above = upstream === undefined ? [] : [...upstream.intermediates, upstream.root]
      const [certificate, ...issuers] = [content, ...above].map((der) => parseCertificate(der))
      if (certificate === undefined) throw new RangeError('unreachable')
      this.#x509Signer = {
        authority,
        signer: newX509Signer(certificate, authority.key, {
          above: issuers,
          pq: pq && parseCertificate(pq),
        }),
      }
    }
    return this.#x509Signer.signer
  }

  jwt(): JwtSigner {
    const { issued, key } = this.#active('jwt')
    const { alternative } = key
    return {
      keyId: issued.authorityId,
      key,
      expiresAtSeconds: issued.expiresAtSeconds,
      pq:
        issued.pq === undefined || alternative === undefined
          ? undefined
          : { keyId: jwtKeyId(issued.pq), key: alternative },
    }
  }

  /** Why the key of an active authority cannot be reached; undefined: it can. */
  whyAway({ key, issued }: ActiveAuthority): string | undefined {
    const place = this.#of.keyManager.place?.(key.id)
    if (place === undefined || place.isUp) return undefined
    return `the key of the active authority ${issued.authorityId} does not sign, in ${place.where}`
  }

  #active(kind: AuthorityKindName): ActiveAuthority {
    const { context, rotator } = this.#of.kinds[kind]
    const { state, detail } = this.#of.keyManager.status()
    if (state === 'down' || state === 'refused') {
      throw new AssayError('unavailable', `cannot sign: the key manager is ${state}: ${detail}`, {
        reason: 'key-manager-down',
      })
    }
    if (rotator.active !== undefined) {
      const away = this.whyAway(rotator.active)
      if (away === undefined) return rotator.active
      throw new AssayError('unavailable', `cannot sign: ${away}`, { reason: 'key-manager-down' })
    }
    // A clock that went back is why there is none, and says so better.
    this.#of.time.now()
    throw new AssayError('unavailable', `cannot sign: no ${context.kind.title} is active`, {
      reason: 'no-active-authority',
    })
  }
}
