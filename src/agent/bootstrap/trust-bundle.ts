import { readFile } from 'node:fs/promises'
import { AssayError, messageOf } from '#base/errors.ts'
import { parseCertificate } from '#pki/certificate.ts'
import { parsePem } from '#pki/pem.ts'
import type { Bundle } from '#spiffe/bundle.ts'
import { parseBundle } from '#spiffe/bundle-json.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'

/** How the server is to be trusted at the first contact. */
export type BootstrapSource =
  | { readonly kind: 'path'; readonly path: string; readonly format: 'pem' | 'spiffe' }
  | { readonly kind: 'url'; readonly url: URL; readonly format: 'pem' | 'spiffe' }
  | { readonly kind: 'insecure' }

const maxBytes = 4 * 2 ** 20
const fetchLimitMs = 30_000

/**
 * Reads the bundle that an operator gave for the first contact. An address is fetched over HTTPS; redirects are not
 * followed.
 *
 * @throws AssayError `failed-precondition` that names the source and what is wrong with it.
 */
export async function loadBootstrapBundle(
  source: Exclude<BootstrapSource, { kind: 'insecure' }>,
  trustDomain: TrustDomain,
  signal: AbortSignal,
): Promise<Bundle> {
  const where = source.kind === 'path' ? source.path : source.url.href
  try {
    const text =
      source.kind === 'path'
        ? await readFile(source.path, 'utf8')
        : await fetchText(source.url, signal)
    const bundle =
      source.format === 'pem' ? bundleOfPem(text, trustDomain) : parseBundle(text, trustDomain)
    if (bundle.x509Authorities.length === 0) throw new SyntaxError('it holds no X.509 authority')
    return bundle
  } catch (error) {
    signal.throwIfAborted()
    throw unreadable(where, error)
  }
}

function bundleOfPem(text: string, trustDomain: TrustDomain): Bundle {
  return {
    trustDomain,
    x509Authorities: parsePem(text, 'CERTIFICATE').map((der) => ({
      certificate: parseCertificate(der).raw,
      tainted: false,
    })),
    jwtAuthorities: [],
    refreshHintSeconds: 0,
    sequenceNumber: 0n,
  }
}

async function fetchText(url: URL, signal: AbortSignal): Promise<string> {
  const response = await fetch(url, {
    redirect: 'error',
    signal: AbortSignal.any([signal, AbortSignal.timeout(fetchLimitMs)]),
  })
  if (!response.ok) throw new Error(`the answer is ${response.status} ${response.statusText}`)
  const chunks: Uint8Array[] = []
  let length = 0
  for await (const chunk of response.body ?? []) {
    length += chunk.length
    if (length > maxBytes) throw new RangeError(`it is longer than ${maxBytes} bytes`)
    chunks.push(chunk)
  }
  return await new Response(new Blob(chunks as Uint8Array<ArrayBuffer>[])).text()
}

function unreadable(where: string, cause: unknown): AssayError {
  return new AssayError(
    'failed-precondition',
    `cannot read the trust bundle ${where}: ${messageOf(cause)}`,
    { reason: 'trust-bundle-unreadable', cause },
  )
}
