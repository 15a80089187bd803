// A workload of the demonstration: becomes the Unix user it is told to be, and knows nothing but the address of
// the Workload API. No key, certificate, token or password is given to it.
//
//   workload.ts USER ENDPOINT ID fetch AUDIENCE        its X.509-SVID, and a JWT-SVID for AUDIENCE
//   workload.ts USER ENDPOINT ID serve PEER-ID         a mutual TLS server for one caller, which must be PEER-ID
//   workload.ts USER ENDPOINT ID call PORT SERVER-ID   calls it
//
// ID is which of its identities it uses, if it has several. // Prints one JSON line for each thing that happens.
import { execFileSync } from 'node:child_process'
import type { AddressInfo } from 'node:net'
import process from 'node:process'
import { text } from 'node:stream/consumers'
import tls from 'node:tls'
import { SystemClock } from '#base/clock.ts'
import { AssayError, messageOf } from '#base/errors.ts'
import { encodePem } from '#pki/pem.ts'
import { requestIdOf } from '#rpc/status.ts'
import { verifyX509Svid } from '#spiffe/x509-svid.ts'
import { WorkloadApi, type X509Context } from '#workload-client/workload-api.ts'

const [user = '', endpoint = '', ownId = '', command, ...rest] = process.argv.slice(2)

function say(event: Readonly<Record<string, unknown>>): void {
  process.stdout.write(`${JSON.stringify(event)}\n`)
}

/** Everything is loaded by now, so the new user need not be able to read this checkout. */
function become(name: string): void {
  if (process.getuid?.() !== 0) return
  const id = (option: string): number =>
    Number(execFileSync('id', [option, name], { encoding: 'utf8' }))
  process.setgroups?.([id('-g')])
  process.setgid?.(id('-g'))
  process.setuid?.(id('-u'))
}

const ownSvid = ({ svids }: X509Context) => svids.find(({ spiffeId }) => spiffeId === ownId)

function credentials(x509: X509Context): tls.SecureContextOptions {
  const svid = ownSvid(x509)
  if (svid === undefined) throw new Error(`no SVID of ${ownId}`)
  return {
    key: encodePem('PRIVATE KEY', svid.privateKey),
    cert: svid.certificates.map(({ raw }) => encodePem('CERTIFICATE', raw)).join(''),
    minVersion: 'TLSv1.3',
  }
}

/** The SPIFFE ID that the peer has proved. */
function verifiedPeer(socket: tls.TLSSocket, x509: X509Context): string {
  const chain: Uint8Array[] = []
  for (
    let one: tls.DetailedPeerCertificate | undefined = socket.getPeerCertificate(true);
    one?.raw;
  ) {
    chain.push(new Uint8Array(one.raw))
    one = one.issuerCertificate === one ? undefined : one.issuerCertificate
  }
  const { spiffeId } = verifyX509Svid({
    certificates: chain,
    bundles: (trustDomain) => {
      const roots = x509.bundles.get(trustDomain)
      if (roots === undefined) return undefined
      return {
        trustDomain,
        x509Authorities: roots.map((certificate) => ({ certificate, tainted: false })),
        jwtAuthorities: [],
        refreshHintSeconds: 0,
        sequenceNumber: 0n,
      }
    },
    nowSeconds: Math.floor(Temporal.Now.instant().epochMilliseconds / 1000),
  })
  return spiffeId
}

async function fetch(api: WorkloadApi, audience: string, signal: AbortSignal): Promise<void> {
  const svid = ownSvid(await api.x509Context(signal))
  const [leaf] = svid?.certificates ?? []
  say({ event: 'x509-svid', id: svid?.spiffeId, expiresAtSeconds: leaf?.notAfterSeconds })
  for (const { spiffeId, token } of await api.jwtSvids([audience], { spiffeId: ownId, signal })) {
    const { claims } = await api.validateJwtSvid(token, { audience, signal })
    say({
      event: 'jwt-svid',
      id: spiffeId,
      audience: claims['aud'],
      algorithm: header(token)['alg'],
    })
  }
}

const header = (token: string): Record<string, unknown> =>
  JSON.parse(
    new TextDecoder().decode(
      Uint8Array.fromBase64(token.split('.')[0] ?? '', { alphabet: 'base64url' }),
    ),
  )

async function serve(api: WorkloadApi, peerId: string, signal: AbortSignal): Promise<void> {
  const x509 = await api.x509Context(signal)
  const server = tls.createServer({
    ...credentials(x509),
    requestCert: true,
    rejectUnauthorized: false,
  })
  await new Promise<void>((resolve, reject) => {
    server.once('secureConnection', (socket) => {
      const id = verifiedPeer(socket, x509)
      if (id !== peerId) reject(new Error(`the caller is ${id}`))
      say({ event: 'caller', id, group: socket.getCipher().name })
      socket.end(`hello ${id}, I am ${ownId}`)
      server.close(() => resolve())
    })
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () =>
      say({ event: 'listening', port: (server.address() as AddressInfo).port }),
    )
  })
}

async function call(
  api: WorkloadApi,
  port: number,
  serverId: string,
  signal: AbortSignal,
): Promise<void> {
  const x509 = await api.x509Context(signal)
  const socket = tls.connect({
    ...credentials(x509),
    host: '127.0.0.1',
    port,
    rejectUnauthorized: false,
  })
  await new Promise<void>((resolve, reject) => {
    socket.once('secureConnect', resolve)
    socket.once('error', reject)
  })
  const id = verifiedPeer(socket, x509)
  if (id !== serverId) throw new Error(`the server is ${id}`)
  say({
    event: 'answer',
    id,
    group: (socket.getEphemeralKeyInfo() as { name?: string })?.name,
    text: await text(socket),
  })
}

become(user)
try {
  const signal = AbortSignal.timeout(20_000)
  using api = new WorkloadApi(endpoint, new SystemClock())
  if (command === 'fetch') await fetch(api, rest[0] ?? '', signal)
  else if (command === 'serve') await serve(api, rest[0] ?? '', signal)
  else if (command === 'call') await call(api, Number(rest[0]), rest[1] ?? '', signal)
} catch (error) {
  say({
    event: 'refused',
    message: messageOf(error),
    ...(error instanceof AssayError && {
      code: error.code,
      reason: error.reason,
      requestId: requestIdOf(error),
    }),
  })
  process.exitCode = 1
}
