import type { Certificate } from '#pki/certificate.ts'

/** A CA above the server: what it signs the server's own CA certificates with, and what they chain to. */
export interface UpstreamCa {
  /** From the CA that signs up to the root, which is last; the same certificate when that CA is a root itself. */
  readonly path: readonly [Certificate, ...Certificate[]]
  /** What verifiers are to trust, every one a CA; the root of `path` is among them. */
  readonly roots: readonly Certificate[]
  /**
   * Signs the TBSCertificate of a CA: the signature as X.509 has it, verified with the CA's public key.
   *
   * @throws AssayError `unavailable` when the key cannot be used now; `failed-precondition` when somebody has to act
   * first.
   */
  sign(toBeSigned: Uint8Array): Promise<Uint8Array>
}

/** The authority that certifies the server's, so that the server is an intermediate. */
export interface UpstreamAuthority extends AsyncDisposable {
  /** For messages: `disk /etc/assay/upstream.pem`. */
  readonly where: string
  /**
   * The CA as it is now: a renewed one is noticed without a restart. Needs no key.
   *
   * @throws AssayError `failed-precondition` that says what is wrong with it and what to do.
   */
  current(): Promise<UpstreamCa>
  /** What its token said when it refused the PIN, which is not sent again until {@link resume}; undefined: it has not. */
  readonly refusal?: string | undefined
  /**
   * Tries a PIN that was refused once more. Does nothing when none was.
   *
   * @throws AssayError `failed-precondition` when it is refused again; `unavailable` when it cannot be tried now.
   */
  resume?(): Promise<void>
}
