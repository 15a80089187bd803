import assert from 'node:assert/strict'
import { test } from 'node:test'
import { progressBar, Terminal } from './terminal.ts'

function newTerminal(error: { isTTY?: boolean; columns?: number }) {
  const written: string[] = []
  const output = { write: (text: string) => void written.push(`out:${text}`) }
  const terminal = new Terminal(output, { ...error, write: (text) => void written.push(text) })
  return { terminal, written }
}

test('Terminal.progress() is written over, and makes room for lines', () => {
  const { terminal, written } = newTerminal({ isTTY: true, columns: 80 })
  terminal.progress('one')
  terminal.progress('two')
  terminal.print('result')
  terminal.note('note')
  terminal.progress('')
  terminal.print('end')
  const erase = '\r\u001b[2K'
  assert.deepEqual(
    written.filter((text) => text !== ''),
    [
      'one',
      ...[erase, 'two'],
      ...[erase, 'out:result\n', 'two'],
      ...[erase, 'note\n', 'two'],
      ...[erase, 'out:end\n'],
    ],
  )
})

test('Terminal.progress() is cut to the width of the terminal, and cannot drive it', () => {
  const { terminal, written } = newTerminal({ isTTY: true, columns: 10 })
  terminal.progress(`\u001b[2J${'x'.repeat(50)}`)
  assert.deepEqual(written, ['\\u001b[2J'])
  const unknown = newTerminal({ isTTY: true, columns: 0 })
  unknown.terminal.progress('x'.repeat(100))
  assert.equal(unknown.written[0]?.length, 79)
})

test('Terminal.print() writes lines at once, and each as one line', () => {
  const { terminal, written } = newTerminal({})
  terminal.print(['one', 'two'])
  terminal.note('web1  1.0\nweb2  banned')
  assert.deepEqual(written, ['out:one\ntwo\n', 'web1  1.0\\u000aweb2  banned\n'])
})

test('Terminal.progress() says nothing where standard error is no terminal', () => {
  const { terminal, written } = newTerminal({})
  terminal.progress('one')
  terminal.note('note')
  assert.deepEqual(written, ['note\n'])
})

test('progressBar() is full when all is done, or there is nothing to do', () => {
  assert.equal(progressBar(0, 4, 4), '[····] 0/4')
  assert.equal(progressBar(1, 3, 4), '[█···] 1/3')
  assert.equal(progressBar(3, 4, 4), '[███·] 3/4')
  assert.equal(progressBar(4, 4, 4), '[████] 4/4')
  assert.equal(progressBar(0, 0, 4), '[████] 0/0')
})
