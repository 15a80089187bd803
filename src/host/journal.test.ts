import assert from 'node:assert/strict'
import { closeSync, fstatSync, openSync } from 'node:fs'
import { test } from 'node:test'
import { isJournal } from './journal.ts'

test('isJournal() goes by the device and inode of what is written to, and not by the variable alone', () => {
  const fd = openSync('/dev/null', 'w')
  try {
    const { dev, ino } = fstatSync(fd)
    assert.equal(isJournal({ JOURNAL_STREAM: `${dev}:${ino}` }, fd), true)
    assert.equal(isJournal({ JOURNAL_STREAM: `${dev}:${ino + 1}` }, fd), false)
    assert.equal(isJournal({ JOURNAL_STREAM: `${dev}:` }, fd), false)
    assert.equal(isJournal({ JOURNAL_STREAM: '' }, fd), false)
    assert.equal(isJournal({}, fd), false)
  } finally {
    closeSync(fd)
  }
})
