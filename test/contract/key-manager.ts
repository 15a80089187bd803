import assert from 'node:assert/strict'
import { type KeyObject, verify } from 'node:crypto'
import { suite, test } from 'node:test'
import { AssayError, type ErrorCode } from '#base/errors.ts'
import type { KeyManager, KeyType, SigningKey } from '#server/plugin/key-manager/key-manager.ts'

/** What the suite needs of an implementation. */
export interface KeyManagerUnderTest {
  readonly name: string
  /** A place for keys that is empty at first; `open` may be called on it again after a disposal. */
  readonly newStore: () => Promise<AsyncDisposable & { open(): Promise<KeyManager> }>
  /** Whether keys are there again when the store is opened again. */
  readonly isDurable: boolean
}

const types: readonly KeyType[] = ['ec-p256', 'ec-p384', 'rsa-2048', 'rsa-3072', 'rsa-4096']

const scheme: Readonly<Record<KeyType, { hash: string; signatureBytes: number }>> = {
  'ec-p256': { hash: 'sha256', signatureBytes: 64 },
  'ec-p384': { hash: 'sha384', signatureBytes: 96 },
  'rsa-2048': { hash: 'sha256', signatureBytes: 256 },
  'rsa-3072': { hash: 'sha256', signatureBytes: 384 },
  'rsa-4096': { hash: 'sha256', signatureBytes: 512 },
}

const message = new TextEncoder().encode('to be signed')

const hasCode = (code: ErrorCode) => (error: unknown) =>
  error instanceof AssayError && error.code === code

async function assertSigns(key: SigningKey, publicKey: KeyObject = key.publicKey): Promise<void> {
  const { hash, signatureBytes } = scheme[key.type]
  const signature = await key.sign(message)
  assert.equal(signature.length, signatureBytes)
  assert.ok(verify(hash, message, { key: publicKey, dsaEncoding: 'ieee-p1363' }, signature))
}

/** Everything `key-manager.ts` promises. */
export function testKeyManager({ name, newStore, isDurable }: KeyManagerUnderTest): void {
  suite(`KeyManager ${name}`, () => {
    for (const type of types) {
      test(`generateKey() makes an ${type} key that signs with its one scheme`, async () => {
        await using store = await newStore()
        await using manager = await store.open()
        const key = await manager.generateKey(`x509ca/${type}`, type)
        assert.equal(key.id, `x509ca/${type}`)
        assert.equal(key.type, type)
        assert.equal(key.publicKey.type, 'public')
        await assertSigns(key)
      })
    }

    test('sign() signs any message, also an empty one and a long one', async () => {
      await using store = await newStore()
      await using manager = await store.open()
      const key = await manager.generateKey('k', 'ec-p256')
      for (const bytes of [0, 1, 100_000]) {
        const long = new Uint8Array(bytes).fill(7)
        const signature = await key.sign(long)
        assert.ok(
          verify('sha256', long, { key: key.publicKey, dsaEncoding: 'ieee-p1363' }, signature),
        )
      }
    })

    test('sign() serves many callers at a time, each its own message', async () => {
      await using store = await newStore()
      await using manager = await store.open()
      const keys = [
        await manager.generateKey('a', 'ec-p256'),
        await manager.generateKey('b', 'rsa-2048'),
      ]
      await Promise.all(
        Array.from({ length: 64 }, async (_, index) => {
          const key = keys[index % 2]
          assert.ok(key)
          const own = new TextEncoder().encode(`message ${index}`)
          const signature = await key.sign(own)
          const verifier = { key: key.publicKey, dsaEncoding: 'ieee-p1363' } as const
          assert.ok(verify('sha256', own, verifier, signature))
        }),
      )
    })

    test('sign() does not read the message after its caller may have reused it', async () => {
      await using store = await newStore()
      await using manager = await store.open()
      const key = await manager.generateKey('k', 'rsa-2048')
      const buffer = new TextEncoder().encode('to be signed')
      const signing = key.sign(buffer)
      buffer.fill(0)
      const signature = await signing
      assert.ok(verify('sha256', message, key.publicKey, signature))
    })

    test('generateKey() refuses a name that is taken, and leaves the old key as it was', async () => {
      await using store = await newStore()
      await using manager = await store.open()
      const first = await manager.generateKey('k', 'ec-p256')
      await assert.rejects(manager.generateKey('k', 'ec-p384'), hasCode('already-exists'))
      assert.equal(manager.key('k'), first)
      await assertSigns(first)
    })

    test('generateKey() gives one of two callers at a time the name', async () => {
      await using store = await newStore()
      await using manager = await store.open()
      const made = await Promise.allSettled([
        manager.generateKey('k', 'ec-p256'),
        manager.generateKey('k', 'ec-p256'),
      ])
      assert.deepEqual(made.map(({ status }) => status).sort(), ['fulfilled', 'rejected'])
      assert.equal(manager.keys().length, 1)
    })

    test('generateKey() refuses names that not every store can hold', async () => {
      await using store = await newStore()
      await using manager = await store.open()
      for (const id of ['', ' ', 'a b', 'k\0', 'schlüssel', 'k\n', 'k'.repeat(129)]) {
        await assert.rejects(manager.generateKey(id, 'ec-p256'), hasCode('invalid-argument'), id)
      }
      assert.deepEqual(manager.keys(), [])
      assert.equal((await manager.generateKey('k'.repeat(128), 'ec-p256')).id.length, 128)
    })

    test('key() and keys() give what was made, the same object each time', async () => {
      await using store = await newStore()
      await using manager = await store.open()
      assert.deepEqual(manager.keys(), [])
      assert.equal(manager.key('a'), undefined)
      const a = await manager.generateKey('a', 'ec-p256')
      const b = await manager.generateKey('b', 'ec-p256')
      assert.equal(manager.key('a'), a)
      assert.deepEqual(
        manager
          .keys()
          .map(({ id }) => id)
          .sort(),
        ['a', 'b'],
      )
      assert.equal(manager.key('b'), b)
      assert.equal(manager.key('constructor'), undefined)
    })

    test('destroyKey() destroys one key, and a name that is not there is no error', async () => {
      await using store = await newStore()
      await using manager = await store.open()
      await manager.generateKey('a', 'ec-p256')
      const b = await manager.generateKey('b', 'ec-p256')
      await manager.destroyKey('a')
      await manager.destroyKey('never')
      assert.equal(manager.key('a'), undefined)
      assert.deepEqual(manager.keys(), [b])
      await assertSigns(b)
    })

    test('destroyKey() frees the name for a new key', async () => {
      await using store = await newStore()
      await using manager = await store.open()
      const old = await manager.generateKey('k', 'ec-p256')
      await manager.destroyKey('k')
      const fresh = await manager.generateKey('k', 'ec-p256')
      assert.ok(!fresh.publicKey.equals(old.publicKey))
      await assertSigns(fresh)
    })

    test('status() is ok and says where the keys are', async () => {
      await using store = await newStore()
      await using manager = await store.open()
      const { state, detail, where } = manager.status()
      assert.equal(state, 'ok')
      assert.equal(detail, '')
      assert.notEqual(where, '')
      manager.onStatus(() => assert.fail('status has not changed'))[Symbol.dispose]()
    })

    if (!isDurable) return

    test('a key that was made is there after the store is opened again, and signs as before', async () => {
      await using store = await newStore()
      const publicKeys = new Map<string, KeyObject>()
      {
        await using manager = await store.open()
        for (const type of types.slice(0, 3)) {
          publicKeys.set(type, (await manager.generateKey(type, type)).publicKey)
        }
        await manager.generateKey('destroyed', 'ec-p256')
        await manager.destroyKey('destroyed')
      }
      await using manager = await store.open()
      assert.deepEqual(
        manager
          .keys()
          .map(({ id }) => id)
          .sort(),
        types.slice(0, 3).sort(),
      )
      for (const [id, publicKey] of publicKeys) {
        const key = manager.key(id)
        assert.ok(key)
        assert.equal(key.type, id)
        assert.ok(key.publicKey.equals(publicKey))
        await assertSigns(key, publicKey)
      }
      await assert.rejects(manager.generateKey('ec-p256', 'ec-p256'), hasCode('already-exists'))
    })
  })
}
