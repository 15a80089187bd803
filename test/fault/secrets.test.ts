// Where secrets are, and that they are nowhere else: in files, logs, arguments, environments, and in every page of
// the server's memory that a core dump would hold. The same search finds the keys of a `disk` key manager.
import assert from 'node:assert/strict'
import { createPrivateKey } from 'node:crypto'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { utf8Bytes } from '#base/bytes.ts'
import { SystemClock } from '#base/clock.ts'
import { connectUnix } from '#rpc/client.ts'
import { LocalAuthorityDefinition } from '#rpc/gen/spire/api/server/localauthority/v1/localauthority.ts'
import type { Daemon } from '../support/daemon.ts'
import { Installation, type KeyManagerKind } from '../support/installation.ts'
import { formsOf } from '../support/key-forms.ts'
import { foundIn, foundInMemory, type Needles } from '../support/process-memory.ts'
import { publicPoint, softHsmScalars } from '../support/softhsm-keys.ts'

const uid = process.getuid?.() ?? 0

/** An authority and a node that have been at work: keys were loaded, made and rotated, SVIDs issued with them. */
interface Worked extends AsyncDisposable {
  readonly assay: Installation
  readonly server: Daemon
  readonly agent: Daemon
  /** A join token that nobody has used. */
  readonly unusedToken: string
  /** Of the workload, as its Workload API gave them. */
  readonly jwtSvid: string
  /** The private scalar of the workload's X.509-SVID. */
  readonly workloadKey: Uint8Array
}

async function work(
  keyManager: KeyManagerKind,
  nodeAttestor: 'tpm' | 'join_token',
): Promise<Worked> {
  await using stack = new AsyncDisposableStack()
  const assay = stack.use(new Installation())
  const settings = 'log_level: debug'
  if (keyManager === 'pkcs11') await assay.makeToken()
  const fingerprint = nodeAttestor === 'tpm' ? await assay.startTpm() : undefined
  await using first = await assay.startServer(keyManager, settings)
  await first[Symbol.asyncDispose]()
  const server = await assay.startServer(keyManager, settings)
  if (fingerprint !== undefined) await assay.allowTpm(fingerprint, 'node-1')
  const agent = await (fingerprint === undefined
    ? assay.startAgent(`join_token: { token: ${await joinToken(assay)} }`, { settings })
    : assay.startAgent(undefined, { settings }))
  const [node] = (await assay.ask('agent', 'list')) as readonly { id: string }[]
  await assay.createEntry(node?.id ?? '', assay.id('/web'), `unix:uid:${uid}`)
  await fetchSvids(assay)
  await rotate(assay)
  const jwtSvid = await fetchSvids(assay)
  const workloadKey = await fetchKey(assay)
  const unusedToken = await joinToken(assay)
  const owned = stack.move()
  return {
    ...{ assay, server, agent, unusedToken, jwtSvid, workloadKey },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  }
}

async function joinToken(assay: Installation): Promise<string> {
  return ((await assay.ask('token', 'generate')) as { token: string }).token
}

async function fetchSvids(assay: Installation): Promise<string> {
  await assay.assay('fetch', 'x509', ...assay.atAgent())
  const fetched = await assay.assay('fetch', 'jwt', '--audience', 'a', '--json', ...assay.atAgent())
  const [svid] = JSON.parse(fetched) as readonly { token: string }[]
  return svid?.token ?? ''
}

/** Has the workload's SVID written beside the installation, and reads the key. */
async function fetchKey(assay: Installation): Promise<Uint8Array> {
  const directory = mkdtempSync(join(tmpdir(), 'assay-workload-'))
  try {
    await assay.assay('fetch', 'x509', '--write', directory, ...assay.atAgent())
    const name = readdirSync(directory).find((file) => file.endsWith('.key')) ?? ''
    const key = createPrivateKey(readFileSync(join(directory, name)))
    return scalarOf(key.export({ format: 'der', type: 'pkcs8' }))
  } finally {
    rmSync(directory, { recursive: true })
  }
}

/** Makes new authorities and signs with them; the old keys stay, for they may be needed to verify. */
async function rotate(assay: Installation): Promise<void> {
  using connection = connectUnix(assay.at('server.sock'), { clock: new SystemClock() })
  const authorities = connection.client(LocalAuthorityDefinition)
  const { preparedAuthority: x509 } = await authorities.prepareX509Authority({})
  await authorities.activateX509Authority({ authorityId: x509?.authorityId ?? '' })
  const { preparedAuthority: jwt } = await authorities.prepareJWTAuthority({})
  await authorities.activateJWTAuthority({ authorityId: jwt?.authorityId ?? '' })
}

/** All files below a directory, by name; what is a socket has no content. */
function filesOf(directory: string): ReadonlyMap<string, Uint8Array> {
  const entries = readdirSync(directory, { withFileTypes: true, recursive: true })
  return new Map(
    entries
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name))
      .map((path) => [path.slice(directory.length + 1), readFileSync(path)]),
  )
}

/** `file: needle` for each that is found. */
function foundInFiles(files: ReadonlyMap<string, Uint8Array>, needles: Needles): readonly string[] {
  return [...files].flatMap(([name, bytes]) =>
    [...foundIn(bytes, needles)].map((needle) => `${name}: ${needle}`),
  )
}

/** What anybody may read of a process. */
function shownBy(pid: number): Uint8Array {
  return Buffer.concat([readFileSync(`/proc/${pid}/cmdline`), readFileSync(`/proc/${pid}/environ`)])
}

function childrenOf(pid: number): readonly number[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').map(Number)
}

const formsOfAll = (scalars: readonly Uint8Array[]): Needles =>
  new Map(scalars.flatMap((scalar, index) => [...formsOf(`key ${index}`, scalar)]))

test('the keys of a token are in no file and nowhere in the memory of the server', async () => {
  await using worked = await work('pkcs11', 'tpm')
  const { assay, server, agent, unusedToken, jwtSvid } = worked
  const pin = readFileSync(assay.at('hsm/pin'), 'utf8')
  const scalars = softHsmScalars(assay.at('hsm'), pin)
  const keys = (await assay.ask('hsm', 'keys')) as readonly unknown[]
  assert.ok(scalars.length >= keys.length && keys.length >= 4, 'two authorities of each kind')
  const needles = formsOfAll(scalars)
  const pins: Needles = new Map([['PIN', utf8Bytes(pin)]])
  // The public halves show that these are the keys of this server, and that its memory is really read.
  const points = new Map(scalars.map((scalar, index) => [`point ${index}`, publicPoint(scalar)]))
  const held = foundInMemory(server.pid, new Map([...needles, ...pins, ...points]))
  assert.ok(held.size >= 2)
  assert.deepEqual(
    [...held].filter((name) => !points.has(name)),
    [],
  )
  assert.deepEqual([...foundInMemory(agent.pid, pins)], [])
  assert.deepEqual(foundInFiles(filesOf(assay.directory), needles), [])
  assert.deepEqual(foundInFiles(filesOf(assay.directory), pins), ['hsm/pin: PIN'])
  const [signer = 0] = childrenOf(server.pid)
  assert.match(readFileSync(`/proc/${signer}/cmdline`, 'utf8'), /hsm\/signer\/main\.ts/)

  const secrets: Needles = new Map([
    ...pins,
    ['unused join token', utf8Bytes(unusedToken)],
    ['JWT-SVID', utf8Bytes(jwtSvid.split('.').at(-1) ?? jwtSvid)],
  ])
  for (const pid of [server.pid, signer, agent.pid]) {
    assert.deepEqual([...foundIn(shownBy(pid), secrets)], [])
  }
  // The datastore has to know the tokens that can be used; nothing else does.
  const elsewhere = [...filesOf(assay.directory)].filter(
    ([name]) => !/^server\/datastore|^hsm\/pin$/.test(name),
  )
  assert.deepEqual(foundInFiles(new Map(elsewhere), secrets), [])

  // Both processes log at debug, and what they have written is among these files.
  for (const log of ['assay-server.log', 'assay-agent.log']) {
    const written = elsewhere.find(([name]) => name === log)?.[1] ?? new Uint8Array()
    assert.match(Buffer.from(written).toString(), / INFO /, log)
  }
  const workload = formsOf('workload key', worked.workloadKey)
  assert.deepEqual(foundInFiles(filesOf(assay.directory), workload), [])
  assert.notDeepEqual([...foundInMemory(agent.pid, workload)], [], 'this is the key that it holds')

  // A node with a TPM proves itself anew, and keeps nothing that would have to be kept secret.
  assert.deepEqual(readdirSync(assay.at('agent')), ['bundle.json'])
})

test('the same search finds the keys of a disk key manager, in its file and in the memory of the server', async () => {
  await using worked = await work('disk', 'join_token')
  const { assay, server } = worked
  const stored = JSON.parse(readFileSync(assay.at('server/keys'), 'utf8')) as {
    keys: Readonly<Record<string, string>>
  }
  const scalars = Object.values(stored.keys).map((pkcs8) => scalarOf(Uint8Array.fromBase64(pkcs8)))
  assert.ok(scalars.length >= 4)
  for (const [index, scalar] of scalars.entries()) {
    const forms = formsOf(`key ${index}`, scalar)
    const held = foundInMemory(server.pid, forms)
    assert.ok(held.has(`key ${index}, as OpenSSL holds it`), `key ${index} is not found`)
    const files = foundInFiles(filesOf(assay.directory), forms)
    assert.ok(files.length > 0)
    for (const file of files) assert.match(file, /^server\/keys: /)
  }
  assert.equal(existsSync(assay.at('agent/agent-identity.json')), true)
})

/** The private scalar of a P-256 key in PKCS#8: the octet string of 32 bytes in it (RFC 5915 §3). */
function scalarOf(pkcs8: Uint8Array): Uint8Array {
  const at = Buffer.from(pkcs8).indexOf(Uint8Array.of(0x02, 0x01, 0x01, 0x04, 0x20))
  assert.ok(at > 0)
  return pkcs8.subarray(at + 5, at + 37)
}
