import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { utf8Bytes, utf8Text } from '#base/bytes.ts'
import { SystemRandom } from '#base/random.ts'
import { readSecretFile, writeSecretFile } from './secret-file.ts'

const isRoot = process.getuid?.() === 0
const folder = mkdtempSync(join(tmpdir(), 'assay-secret-'))
const random = new SystemRandom()
after(() => rmSync(folder, { recursive: true }))

function file(name: string, mode: number): string {
  const path = join(folder, name)
  writeFileSync(path, 'content')
  chmodSync(path, mode)
  return path
}

describe('readSecretFile()', () => {
  it('reads a file that only its owner can', async () => {
    assert.equal(utf8Text(await readSecretFile(file('own', 0o600))), 'content')
    assert.equal(utf8Text(await readSecretFile(file('read-only', 0o400))), 'content')
  })

  for (const mode of [0o640, 0o604, 0o610, 0o666]) {
    it(`refuses mode ${mode.toString(8)} and says how to mend it`, async () => {
      const path = file(`mode-${mode.toString(8)}`, mode)
      await assert.rejects(readSecretFile(path), {
        code: 'failed-precondition',
        reason: 'secret-file-not-private',
        message: new RegExp(`chmod 0600 ${path}$`),
      })
    })
  }

  it('refuses a file of another user', {
    skip: !isRoot && 'only root can give files away',
  }, async () => {
    const path = file('theirs', 0o600)
    chownSync(path, 65534, 65534)
    await assert.rejects(readSecretFile(path), { message: /belongs to user 65534/ })
  })

  it('refuses a link, a folder, a FIFO and what is too large, and does not hang', async () => {
    const link = join(folder, 'link')
    symlinkSync(file('target', 0o600), link)
    await assert.rejects(readSecretFile(link), { message: /symbolic link/ })
    const sub = join(folder, 'sub')
    mkdirSync(sub, 0o700)
    await assert.rejects(readSecretFile(sub), { message: /not a file/ })
    const fifo = join(folder, 'fifo')
    spawnSync('mkfifo', ['-m', '600', fifo])
    await assert.rejects(readSecretFile(fifo), { message: /not a file/ })
    const large = file('large', 0o600)
    writeFileSync(large, new Uint8Array(1024 * 1024 + 1))
    await assert.rejects(readSecretFile(large), { message: /larger than/ })
  })

  it('says of a file that is not there that it is not', async () => {
    await assert.rejects(readSecretFile(join(folder, 'none')), { code: 'not-found' })
  })
})

describe('writeSecretFile()', () => {
  it('writes mode 0600 whatever the umask and whatever was there, and leaves nothing behind', async () => {
    const path = file('written', 0o644)
    for (const umask of [0o000, 0o277]) {
      const before = process.umask(umask)
      try {
        await writeSecretFile(path, utf8Bytes(`after ${umask}`), { random })
      } finally {
        process.umask(before)
      }
      assert.equal(statSync(path).mode & 0o7777, 0o600)
      assert.equal(utf8Text(await readSecretFile(path)), `after ${umask}`)
    }
    assert.deepEqual(
      readdirSync(folder).filter((name) => name.endsWith('.tmp')),
      [],
    )
  })

  it('replaces a link and not what it points to', async () => {
    const target = file('pointed-to', 0o600)
    const link = join(folder, 'replaced')
    symlinkSync(target, link)
    await writeSecretFile(link, utf8Bytes('new'), { random })
    assert.equal(utf8Text(await readSecretFile(link)), 'new')
    assert.equal(utf8Text(await readSecretFile(target)), 'content')
  })

  it('leaves the old content when it cannot be replaced', async () => {
    const path = join(folder, 'occupied')
    mkdirSync(join(path, 'by-a-folder'), { recursive: true })
    await assert.rejects(writeSecretFile(path, utf8Bytes('new'), { random }))
    assert.ok(statSync(path).isDirectory())
    assert.deepEqual(
      readdirSync(folder).filter((name) => name.endsWith('.tmp')),
      [],
    )
  })
})
