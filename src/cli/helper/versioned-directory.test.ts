import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import process from 'node:process'
import { after, test } from 'node:test'
import { utf8Bytes } from '#base/bytes.ts'
import { SystemRandom } from '#base/random.ts'
import { type Ownership, VersionedDirectory, type VersionFile } from './versioned-directory.ts'

// In memory where there is such a place: thousands of versions are synced.
const base = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'assay-versions-'))
after(() => rmSync(base, { recursive: true }))

let made = 0
const newDirectory = (): string => join(base, String(++made))
const newPlace = (): string => {
  const path = newDirectory()
  mkdirSync(path)
  return path
}
const nobodyElse: Ownership = { uid: undefined, gid: undefined }
const open = (path: string, layout: 'versions' | 'plain' = 'versions', ownership = nobodyElse) =>
  VersionedDirectory.open(path, { layout, ownership, random: new SystemRandom() })

const key = (text: string): VersionFile => ({ name: 'key', content: utf8Bytes(text), mode: 0o600 })
const certificate = (text: string): VersionFile => ({
  name: 'certificate',
  content: utf8Bytes(text),
  mode: 0o644,
})
const isRoot = process.getuid?.() === 0

test('VersionedDirectory.replace() exchanges every name by one link, and keeps the version before', async () => {
  const path = newDirectory()
  const directory = await open(path)
  assert.equal(await directory.replace([key('1'), certificate('1')]), true)
  const first = readlinkSync(join(path, 'current'))
  assert.equal(readlinkSync(join(path, 'key')), 'current/key')
  assert.equal(await directory.replace([key('2'), certificate('2')]), true)
  assert.equal(readFileSync(join(path, 'certificate'), 'utf8'), '2')
  assert.equal(readFileSync(join(path, first, 'key'), 'utf8'), '1')
  await directory.replace([key('3'), certificate('3')])
  assert.equal(existsSync(join(path, first)), false)
  assert.equal(readdirSync(join(path, '.versions')).length, 2)
})

test('VersionedDirectory.replace() writes nothing when everything is there already', async () => {
  const path = newDirectory()
  await (await open(path)).replace([key('1'), certificate('1')])
  const version = readlinkSync(join(path, 'current'))
  const again = await open(path)
  assert.equal(await again.replace([key('1'), certificate('1')]), false)
  assert.equal(readlinkSync(join(path, 'current')), version)
  assert.equal(await again.replace([key('1'), { ...certificate('1'), mode: 0o640 }]), true)
  assert.equal(await again.replace([key('1')]), true)
  assert.deepEqual(readdirSync(path), ['.versions', 'current', 'key'])
})

test('VersionedDirectory.replace() gives modes and owners whatever the umask', {
  skip: !isRoot && 'needs root',
}, async () => {
  const path = newDirectory()
  const before = process.umask(0o077)
  try {
    const directory = await open(path, 'versions', { uid: 65534, gid: 65534 })
    await directory.replace([key('1'), { ...certificate('1'), mode: 0o664 }])
  } finally {
    process.umask(before)
  }
  for (const [name, mode] of [
    ['key', 0o600],
    ['certificate', 0o664],
  ] as const) {
    const { uid, gid, mode: found } = statSync(join(path, name))
    assert.deepEqual([uid, gid, found & 0o777], [65534, 65534, mode])
  }
  for (const name of ['', '.versions', 'current']) {
    assert.equal(statSync(join(path, name)).mode & 0o777, 0o755)
  }
})

test('VersionedDirectory.replace() leaves everything as it was when it fails', {
  skip: !isRoot && 'needs root',
}, async () => {
  const path = newDirectory()
  const directory = await open(path)
  await directory.replace([key('1'), certificate('1')])
  const twice = [key('2'), key('2')]
  await assert.rejects(directory.replace(twice), { code: 'EEXIST' })
  assert.equal(readFileSync(join(path, 'key'), 'utf8'), '1')
  assert.equal(readdirSync(join(path, '.versions')).length, 1)
})

test('VersionedDirectory with layout plain has files, and links when the layout changes', async () => {
  const path = newDirectory()
  const plain = await open(path, 'plain')
  assert.equal(await plain.replace([key('1'), certificate('1')]), true)
  assert.equal(await plain.replace([key('1'), certificate('1')]), false)
  assert.equal(lstatSync(join(path, 'key')).isFile(), true)
  assert.deepEqual(readdirSync(path), ['certificate', 'key'])
  assert.equal(await (await open(path)).replace([key('1'), certificate('1')]), true)
  assert.equal(lstatSync(join(path, 'key')).isSymbolicLink(), true)
  assert.equal(await plain.replace([key('1'), certificate('1')]), true)
  assert.equal(lstatSync(join(path, 'key')).isFile(), true)
})

test('VersionedDirectory.open() removes what a process left that was killed, and no other file', async () => {
  const path = newDirectory()
  await (await open(path)).replace([key('1')])
  mkdirSync(join(path, '.versions', 'half'))
  symlinkSync('nowhere', join(path, '.current.0123456789abcdef.tmp'))
  writeFileSync(join(path, 'mine'), '')
  const directory = await open(path)
  await directory.replace([key('2')])
  assert.deepEqual(readdirSync(path), ['.versions', 'current', 'key', 'mine'])
  assert.equal(readdirSync(join(path, '.versions')).length, 2)
})

test('VersionedDirectory.open() refuses a directory in which others could put links', {
  skip: !isRoot && 'needs root',
}, async () => {
  const path = newDirectory()
  mkdirSync(path)
  chmodSync(path, 0o775)
  await assert.rejects(open(path), { reason: 'directory-not-own', message: /chmod go-w/ })
  chmodSync(path, 0o755)
  chownSync(path, 65534, 65534)
  await assert.rejects(open(path), {
    reason: 'directory-not-own',
    message: /belongs to user 65534/,
  })
})

test('VersionedDirectory.open() refuses a directory on whose way others could put another one', async () => {
  const parent = newDirectory()
  mkdirSync(join(parent, 'certs'), { recursive: true })
  chmodSync(parent, 0o777)
  await assert.rejects(open(join(parent, 'certs')), {
    reason: 'directory-not-own',
    message: new RegExp(`mode 0777 of ${parent} lets others`),
  })
  const link = join(newDirectory(), 'link')
  mkdirSync(dirname(link))
  symlinkSync(join(parent, 'certs'), link)
  await assert.rejects(open(link), { reason: 'directory-not-own' }, 'where the link leads')
  chmodSync(parent, 0o1777)
  await open(join(parent, 'certs'))
  chmodSync(parent, 0o755)
  chmodSync(dirname(link), 0o777)
  await assert.rejects(open(link), { reason: 'directory-not-own' }, 'where the link is')
})

test('VersionedDirectory.replace() writes no version where somebody has put a link, or may write', async () => {
  for (const prepare of [
    (versions: string) => symlinkSync(newPlace(), versions),
    (versions: string) => {
      mkdirSync(versions)
      chmodSync(versions, 0o777)
    },
  ]) {
    const path = newPlace()
    prepare(join(path, '.versions'))
    const directory = await open(path)
    await assert.rejects(directory.replace([key('1')]), { reason: 'directory-not-own' })
  }
})

/** Reads both files of the version that `current` leads to, over and over; says how often, and how often they differed. */
const reader = `
const { readFileSync, realpathSync } = require('node:fs')
let read = 0, differed = 0
process.on('SIGTERM', () => { stop = true })
let stop = false
const round = () => {
  for (let i = 0; i < 50; i++) {
    try {
      const version = realpathSync(process.argv[1] + '/current')
      const key = readFileSync(version + '/key', 'utf8')
      const certificate = readFileSync(version + '/certificate', 'utf8')
      read++
      if (key !== certificate) differed++
    } catch (error) {
      // Two versions came meanwhile, which a helper leaves a second between.
      if (error.code !== 'ENOENT') throw error
    }
  }
  if (stop) console.log(JSON.stringify({ read, differed }))
  else setImmediate(round)
}
console.log('reading')
round()
`

test('a reader that follows the link once never sees a key beside a certificate of another version', async () => {
  const path = newDirectory()
  const directory = await open(path)
  await directory.replace([key('0'), certificate('0')])
  const child = spawn(process.execPath, ['-e', reader, path], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  child.stdout.setEncoding('utf8')
  const signal = AbortSignal.timeout(20_000)
  await once(child.stdout, 'data', { signal })
  for (let version = 1; version <= 1000; version++) {
    await directory.replace([key(String(version)), certificate(String(version))])
  }
  child.kill('SIGTERM')
  const [text] = (await once(child.stdout, 'data', { signal })) as [string]
  const { read, differed } = JSON.parse(text)
  assert.ok(read > 100, `${read} reads`)
  assert.equal(differed, 0)
})
