// Certificates with both signatures before verifiers of others: those that know nothing of the second accept them as
// ever, and Bouncy Castle, which does, finds what our own verifier finds, of right ones and of every attack.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import process from 'node:process'
import { after, before, test } from 'node:test'
import type { FakeClock } from '#base/fake-clock.ts'
import { encodePem } from '#pki/pem.ts'
import { generateEcKeyPair } from '#pki/private-key.ts'
import { mlDsaParameterSets } from '#pq-crypto/ml-dsa.ts'
import { AuthorityManager } from '#server/authority/authority-manager.ts'
import { newAlternativeKeysInMemory } from '#server/plugin/key-manager/alternative-keys.ts'
import { withAlternativeKeys } from '#server/plugin/key-manager/hybrid.ts'
import { spiffeId } from '#spiffe/spiffe-id.ts'
import { authorityOptions, newMemoryKeyManager, trustDomain } from '../support/authorities.ts'
import { nowSeconds } from '../support/certificates.ts'
import {
  newHybridAuthority,
  newHybridIntermediate,
  newHybridSvid,
} from '../support/hybrid-certificates.ts'
import { Installation } from '../support/installation.ts'
import { pqAttacks } from '../support/pq-attacks.ts'
import {
  type ClientEvent,
  copyForEveryone,
  expectEvent,
  goClient,
  javaClient,
  pythonClient,
  run,
  uidOf,
} from './clients.ts'

interface Case {
  readonly name: string
  /** Leaf first. */
  readonly chain: readonly Uint8Array[]
  readonly anchor: Uint8Array
  readonly classicallyValid: boolean
  /** What Bouncy Castle is to find of each certificate, the anchor last; undefined: of an attack, not all `valid`. */
  readonly alternative?: readonly string[]
}

const go = goClient()
const java = javaClient('Verify')
const python = pythonClient()
const folder = mkdtempSync(join(tmpdir(), 'assay-hybrid-'))
after(() => rmSync(folder, { recursive: true }))
const cases: Case[] = []

/** A leaf and its authority by the product itself, with authorities of each key type and parameter set. */
async function issued(): Promise<Case[]> {
  const found: Case[] = []
  for (const caKeyType of ['ec-p256', 'ec-p384', 'rsa-2048'] as const) {
    for (const pqParameterSet of mlDsaParameterSets) {
      const options = authorityOptions({
        caKeyType,
        pqParameterSet,
        keyManager: withAlternativeKeys(newMemoryKeyManager(), {
          alternatives: newAlternativeKeysInMemory(),
          parameterSet: pqParameterSet,
        }),
      })
      using manager = await AuthorityManager.open(options)
      assert.equal((options.clock as FakeClock).now().epochMilliseconds / 1000, nowSeconds)
      const { certificates } = await manager.certificateAuthority.issueX509Svid({
        spiffeId: spiffeId(trustDomain, '/web'),
        publicKey: generateEcKeyPair('ec-p256').publicKey,
        dnsNames: ['web.example.org'],
        ttlSeconds: 0,
      })
      const [authority] = manager.states('x509')
      assert.ok(authority)
      found.push({
        name: `issued by ${caKeyType} and ${pqParameterSet}`,
        chain: certificates,
        anchor: authority.content,
        classicallyValid: true,
        alternative: ['valid', 'valid'],
      })
    }
  }
  return found
}

before(async () => {
  const root = newHybridAuthority('example.org', 'ml-dsa-65')
  const middle = newHybridIntermediate(root, 'example.org', 'ml-dsa-44')
  const leaf = newHybridSvid(middle, 'spiffe://example.org/web')
  cases.push(...(await issued()), {
    name: 'below an intermediate',
    chain: [leaf.certificate, middle.certificate],
    anchor: root.certificate,
    classicallyValid: true,
    alternative: ['valid', 'valid', 'valid'],
  })
  for (const [name, attack] of Object.entries(pqAttacks)) cases.push({ name, ...attack() })
  for (const [index, { chain, anchor }] of cases.entries()) {
    const directory = directoryOf(index)
    mkdirSync(directory)
    const pem = (ders: readonly Uint8Array[]) =>
      ders.map((der) => encodePem('CERTIFICATE', der)).join('')
    writeFileSync(join(directory, 'chain.pem'), pem(chain))
    writeFileSync(join(directory, 'rest.pem'), pem(chain.slice(1)))
    writeFileSync(join(directory, 'anchor.pem'), pem([anchor]))
  }
})

const directoryOf = (index: number): string => join(folder, String(index).padStart(3, '0'))

/** What a client said of each case. */
async function verdicts(events: AsyncIterable<ClientEvent>): Promise<Map<string, ClientEvent>> {
  const found = new Map<string, ClientEvent>()
  for await (const event of events) found.set(String(event['case']), event)
  assert.equal(found.size, cases.length)
  return found
}

const caseName = (index: number): string => String(index).padStart(3, '0')

test('OpenSSL verifies hybrid chains, and attacked ones, as if the second signature were not there', () => {
  for (const [index, { name, chain, classicallyValid }] of cases.entries()) {
    let accepted = true
    try {
      const rest = chain.length > 1 ? ['-untrusted', 'rest.pem'] : []
      execFileSync(
        'openssl',
        [
          ...['verify', '-x509_strict', '-attime', String(nowSeconds)],
          ...['-CAfile', 'anchor.pem', ...rest, 'chain.pem'],
        ],
        { cwd: directoryOf(index), stdio: 'pipe' },
      )
    } catch {
      accepted = false
    }
    assert.equal(accepted, classicallyValid, name)
  }
})

test('go-spiffe verifies hybrid chains, and attacked ones, as if the second signature were not there', {
  skip: go.missing ?? false,
}, async () => {
  const found = await verdicts(run(go, ['verify', folder, String(nowSeconds)]))
  for (const [index, { name, classicallyValid }] of cases.entries()) {
    const { error, id } = found.get(caseName(index)) ?? assert.fail(name)
    assert.equal(error === '', classicallyValid, `${name}: ${error}`)
    if (classicallyValid) assert.equal(id, 'spiffe://example.org/web')
  }
})

test('Java verifies them so too, and Bouncy Castle finds the second signatures right, and no attack', {
  skip: java.missing ?? false,
}, async () => {
  const found = await verdicts(run(java, [folder, String(nowSeconds)]))
  for (const [index, { name, classicallyValid, alternative }] of cases.entries()) {
    const { error, alternative: judged } = found.get(caseName(index)) ?? assert.fail(name)
    assert.equal(error === '', classicallyValid, `${name}: ${error}`)
    const verdict = judged as readonly string[]
    if (alternative !== undefined) assert.deepEqual(verdict, alternative, name)
    // The anchor's own signature is right in attacks too. Whether an extension is critical is our rule alone.
    else if (classicallyValid) {
      assert.ok(!verdict.slice(0, -1).every((one) => one === 'valid'), `${name}: ${verdict}`)
    }
  }
})

test('workloads with go-spiffe and py-spiffe live with hybrid SVIDs: the Workload API and mutual TLS', {
  skip: go.missing ?? python.missing ?? false,
}, async () => {
  const isRoot = process.getuid?.() === 0
  const uid = isRoot ? uidOf('www-data') : (process.getuid?.() ?? 0)
  await using assay = new Installation()
  const client = copyForEveryone(go, assay.directory)
  await assay.startServer('memory', 'pq_signatures: hybrid\n')
  const { token } = (await assay.ask('token', 'generate')) as { token: string }
  await assay.startAgent(`join_token: { token: ${token} }`)
  const [node] = (await assay.ask('agent', 'list')) as readonly { id: string }[]
  const nodeId = node?.id ?? ''
  await assay.createEntry(nodeId, assay.id('/web'), `unix:uid:${uid}`)
  if (isRoot) await assay.createEntry(nodeId, assay.id('/python'), 'unix:uid:0')
  const context = await expectEvent(run(client, ['x509', assay.workloadSocket], { uid }), 'x509')
  assert.equal((context['svids'] as readonly { id: string }[])[0]?.id, assay.id('/web'))
  const stop = new AbortController()
  const serving = run(client, ['serve', assay.workloadSocket, assay.id('/web')], {
    uid,
    signal: stop.signal,
  })
  const { address } = await expectEvent(serving, 'listening')
  const calling = ['call', assay.workloadSocket, String(address), assay.id('/web')]
  assert.equal((await expectEvent(run(client, calling, { uid }), 'greeted'))['text'], 'hello\n')
  stop.abort()
  const own = await expectEvent(run(python, ['x509', assay.workloadSocket]), 'x509')
  const id = (own['svids'] as readonly { id: string }[])[0]?.id
  assert.equal(id, assay.id(isRoot ? '/python' : '/web'))
})
