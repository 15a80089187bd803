import { WebConsole } from '#console/console.ts'
import type { ListenAt } from '#console/http.ts'
import { type Command, type CommandContext, integer, optional, UsageError } from '../command.ts'
import { serverConnection, tryServer } from '../daemons.ts'

const forwardedPort = 7780

function listenAt(context: CommandContext): ListenAt {
  const path = optional(context, 'listen-socket')
  const port = integer(context, 'port', { otherwise: 0 })
  if (port > 65_535) throw new UsageError(`option --port is ${port}: it must be at most 65535`)
  return path === undefined ? { kind: 'loopback', port } : { kind: 'unix', path }
}

const consoleCommand: Command = {
  name: 'console',
  summary: 'show nodes, keys, SVIDs and refused attestations in the browser, until interrupted',
  options: [
    {
      name: 'port',
      value: 'NUMBER',
      summary: 'port of 127.0.0.1 to serve on; any that is free when absent',
    },
    {
      name: 'listen-socket',
      value: 'PATH',
      summary: 'serve on a Unix socket of this user alone instead, for ssh -L PORT:PATH',
    },
    { name: 'socket-path', value: 'PATH', summary: "the server's administration socket" },
  ],
  details: `
Prints a link, which works once: the browser that opens it may look until the console ends. When it was used the
next one is printed. Nothing can be changed from the page, and it shows what the user of this command may read.

From another machine: ssh -L 7780:127.0.0.1:PORT AUTHORITY or, with --listen-socket, ssh -L 7780:PATH AUTHORITY; the
link is then opened with 7780 for its port.`,
  async run(context) {
    const { signal, clock, random } = context
    const at = listenAt(context)
    using connection = serverConnection(context)
    await using web = await WebConsole.open({
      connection,
      listenAt: at,
      clock,
      random,
      onLinkUsed: () => {
        if (!context.json) context.note('that link was used; the next is')
        printLink()
      },
    })
    await tryServer(context, connection)
    // Behind a forwarded socket the browser's end has whatever port its user chose.
    const port = web.port ?? forwardedPort
    if (!context.json) {
      context.note(
        at.kind === 'unix'
          ? `serving on ${at.path} until interrupted; ssh -L ${port}:${at.path} to here, and open`
          : 'serving until interrupted; open',
      )
    }
    printLink()
    await web.run(signal)
    signal.throwIfAborted()

    function printLink(): void {
      const url = `http://127.0.0.1:${port}/#${web.newLink()}`
      context.print(context.json ? JSON.stringify({ url }) : url)
    }
  },
}

export const commands: readonly Command[] = [consoleCommand]
