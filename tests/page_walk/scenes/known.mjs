// What the embedded model knows.

import assert from "node:assert/strict";

export const known = {
  colorScheme: "dark",
  async play({ server, visit }) {
    await server.start();
    const page = await visit.openPage(server.url);
    const said = () => page.textContent("#nearest [role=status]");
    await page.fill("#prompt", "an automobile");
    await page.waitForFunction(() => document.querySelector("#nearest [role=status]").textContent === "Nearest thing I know: car.");
    await visit.accessible(page, "nearest thing");
    await page.click("#nearest [role=status] button");
    assert.equal(await page.inputValue("#prompt"), "a car");
    await page.waitForFunction(() => document.querySelector("#nearest [role=status]").textContent === "");
    await page.fill("#prompt", "a purple giraff");
    await page.waitForFunction(() => document.querySelector("#nearest [role=status]").textContent === "Nearest thing I know: giraffe.");
    await page.fill("#prompt", "qqqq zzzz");
    await page.waitForFunction(() => document.querySelector("#nearest [role=status]").textContent === "I know nothing like this.");
    for (const prompt of ["a cathedral at night", "a catheter", "a photograph of the Eiffel tower", "a spanner", "a gren wrench", "a constructor"]) {
      await page.fill("#prompt", "a car");
      await page.waitForFunction(() => document.querySelector("#nearest [role=status]").textContent === "");
      await page.fill("#prompt", prompt);
      await page.waitForFunction(() => document.querySelector("#nearest [role=status]").textContent !== "");
      assert.equal(await said(), "I know nothing like this.", prompt);
    }
    await visit.accessible(page, "nothing near");
    await page.fill("#prompt", "two red foxes on a blue background");
    await page.waitForFunction(() => document.querySelector("#nearest [role=status]").textContent === "");
    assert.equal(await said(), "");
    await page.click("text=What this model knows");
    await page.waitForFunction(() => document.querySelectorAll(".known-things button").length === 286);
    await visit.accessible(page, "what it knows");
    await page.keyboard.type("vehicles");
    await page.waitForFunction(() => document.querySelectorAll(".known-things button").length < 30);
    await page.click(".known-things >> text=rocket");
    assert.equal(await page.inputValue("#prompt"), "a rocket");
  },
};
